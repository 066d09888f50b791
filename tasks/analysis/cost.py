"""What a search costs at a number of images in flight: seconds, tokens, and the memory that it adds.

A stage apart from `search`, whose result doesn't depend on the batch size and is therefore not computed again for another one.
"""

from __future__ import annotations

import ctypes
import gc
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from storage import lake
from storage.artifacts import Table
from storage.schema import Image, Metric, Sample
from tasks.configs.search import SearchConfig
from tasks.core.benchmarks.estimates import Source, estimate_rows
from tasks.core.metrics import without_interval
from tasks.models.handles import Guide, PolicyHandle
from tasks.models.loading import Pictures, current_device
from tasks.search.search import strategy_code
from tasks.search.searcher import Searcher
from tasks.stage.quarantine import StageInputError
from tasks.stage.results import StageResult
from tasks.stage.runtime import current_runtime, use_runtime
from tasks.stage.stage import stage

TIMES = 2  # searches in all; the quicker one counts, for the other may have shared the machine
COUNTED = {
    "tokens": "decode_tokens",
    "prefill_tokens": "prefill_tokens",
    "value_tokens": "value_tokens",
    "texts_scored": "texts_embedded",
}


@dataclass(frozen=True)
class SearchCostResult(StageResult):
    """Figures of benchmark `cost`.

    `ms` and token counts are of one caption; `peak_mib` is memory at the peak less what was in use before the search: of the
    GPU where there is one, else of the process (Linux only).
    """

    metrics: Table[Metric]


@stage(plug_in_code=strategy_code)
def profile_search_cost(
    config: SearchConfig,
    policy: PolicyHandle,
    images: Table[Image],
    samples: Table[Sample],
    guide: Guide,
    *,
    batch_size: int,
    seed: int,
    decoding: str,
) -> SearchCostResult:
    """A search of all samples, `batch_size` in flight, models loaded and warm.

    Raises:
        StageInputError: no samples.
    """
    todo = lake.read_rows(Sample, samples)
    if not todo:
        raise StageInputError("no samples to profile a search on; raise evaluate.images")
    with use_runtime(current_runtime().model_copy(update={"batch_size": batch_size})):
        searcher = Searcher(config, policy, guide, seed=seed)
        list(searcher.run(todo[:2], Pictures(images, todo)))
        best, before, peaks = float("inf"), Counter(searcher.counters), []
        for _ in range(TIMES):
            memory, began = _Peak(current_device()), time.perf_counter()
            for _ in searcher.run(todo, Pictures(images, todo)):
                pass
            best = min(best, time.perf_counter() - began)
            peaks.append(memory.mib())
    counts = searcher.counters - before
    values = {name: counts[counter] / TIMES / len(todo) for name, counter in COUNTED.items()}
    values |= {"ms": 1000 * best / len(todo), "peak_mib": min(peaks)}
    figures = {name: without_interval(value, len(todo)) for name, value in values.items()}
    rows = estimate_rows(figures, Source("base", decoding, "cost"))
    return SearchCostResult(lake.publish(Metric, rows))


class _Peak:
    """The most memory in use from here on, beyond what is in use now."""

    def __init__(self, device: str) -> None:
        self.cuda = device.startswith("cuda")
        if self.cuda:
            import torch

            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated() / 2**20
            return
        gc.collect()
        _return_free_memory()
        try:
            # The peak counts from now on; see proc(5).
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            self.before = float("nan")
            return
        self.before = _status("VmRSS")

    def mib(self) -> float:
        """MiB; NaN where it can't be measured."""
        if self.cuda:
            import torch

            torch.cuda.synchronize()
            return torch.cuda.max_memory_allocated() / 2**20 - self.before
        return _status("VmHWM") - self.before


def _return_free_memory() -> None:
    """Let the C library return what is free, or this search would use memory of an earlier one without being counted."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):  # not glibc
        return


def _status(field: str) -> float:
    """MiB of a line of /proc/self/status; NaN where there is none."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return float("nan")
    kib = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return int(kib[0]) / 1024 if kib else float("nan")
