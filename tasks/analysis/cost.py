"""Weigh: what a search takes at a number of images in flight: seconds, tokens, and memory beyond what stood before it.

A stage apart from `search`, whose result doesn't depend on the batch size and is therefore not computed again for another one.
"""

from __future__ import annotations

import ctypes
import gc
import time
from collections import Counter
from pathlib import Path

from storage import lake
from storage.artifacts import ArtifactRef, StageOutput
from storage.schema import Metric, Sample
from tasks.configs.policy import PolicyConfig
from tasks.configs.search import SearchConfig
from tasks.core.benchmarks.estimates import Source, estimate_rows
from tasks.core.metrics import without_interval
from tasks.models.loading import Pictures, device_of
from tasks.search.searcher import Guides, Searcher
from tasks.stage.runtime import RuntimeConfig
from tasks.stage.stage import StageInputError, stage

TIMES = 2  # the same again; the quicker one counts, for the other may have shared the machine
COUNTED = {
    "tokens": "decode_tokens",
    "prefill_tokens": "prefill_tokens",
    "value_tokens": "value_tokens",
    "texts_scored": "texts_embedded",
}


@stage()
def weigh(
    config: SearchConfig,
    model: PolicyConfig,
    policy: ArtifactRef,
    images: ArtifactRef,
    samples: ArtifactRef,
    *,
    batch_size: int,
    seed: int,
    decoding: str,
    scorer: ArtifactRef | None = None,
    tau: float | None = None,
    value: ArtifactRef | None = None,
    backbone: ArtifactRef | None = None,
    values: ArtifactRef | None = None,
    answer_mean: float | None = None,
    answer_std: float | None = None,
    code: str = "",
    runtime: RuntimeConfig,
    label: str = "",
) -> StageOutput:
    """A search of all samples, `batch_size` in flight, models loaded and warm. Output: metrics of benchmark cost.

    `ms` and token counts are of one caption; `peak_mib` is memory at the peak less what was taken before the search: of the GPU
    where there is one, else of the process (Linux only).
    """
    todo = lake.read_rows(Sample, samples)
    if not todo:
        raise StageInputError("no samples to weigh a search on; raise evaluate.images")
    runtime = runtime.model_copy(update={"batch_size": batch_size})
    answers = None if answer_mean is None or answer_std is None else (answer_mean, answer_std)
    guides = Guides(scorer, tau, value, backbone, values, answers)
    searcher = Searcher(config, model, policy, guides, seed=seed, runtime=runtime)
    list(searcher.run(todo[:2], Pictures(images, todo, batch_size)))
    best, before, peaks = float("inf"), Counter(searcher.counters), []
    for _ in range(TIMES):
        memory, began = _Peak(device_of(runtime)), time.perf_counter()
        for _ in searcher.run(todo, Pictures(images, todo, batch_size)):
            pass
        best = min(best, time.perf_counter() - began)
        peaks.append(memory.mib())
    counts = searcher.counters - before
    found = {name: counts[counter] / TIMES / len(todo) for name, counter in COUNTED.items()}
    found |= {"ms": 1000 * best / len(todo), "peak_mib": min(peaks)}
    figures = {name: without_interval(value, len(todo)) for name, value in found.items()}
    rows = estimate_rows(figures, Source("base", decoding, "cost"))
    return StageOutput(refs={"metrics": lake.publish(Metric, rows)})


class _Peak:
    """The most memory that is taken from here on, beyond what is taken now."""

    def __init__(self, device: str) -> None:
        self.cuda = device.startswith("cuda")
        if self.cuda:
            import torch

            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated() / 2**20
            return
        gc.collect()
        _give_back()
        try:
            # The peak counts from now on; see proc(5).
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            self.before = float("nan")
            return
        self.before = _status("VmRSS")

    def mib(self) -> float:
        """MiB; NaN where it can't be told."""
        if self.cuda:
            import torch

            torch.cuda.synchronize()
            return torch.cuda.max_memory_allocated() / 2**20 - self.before
        return _status("VmHWM") - self.before


def _give_back() -> None:
    """Let the C library return what is free, so that memory of an earlier search doesn't serve this one unseen."""
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
    found = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return int(found[0]) / 1024 if found else float("nan")
