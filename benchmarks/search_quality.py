"""ViMaR against VisVM on the demo: seconds and CHAIRi, with a value model that was trained by the stages."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from benchmarks.measured import on_scenes
from flows.experiments.bench import Bench, arm, config_of, prepare_bench
from flows.round.guide import guide_for
from storage import lake
from storage.schema import Sample
from tasks.configs.search import SearchConfig
from tasks.models.loading import Pictures
from tasks.search.searcher import Searcher
from tasks.stage.runtime import use_runtime

BY_VALUE = "visvm:end=vote,candidates=30"  # needs no scores, as the released search
VISVM = [*(f"visvm:candidates={k}" for k in (6, 12, 30)), BY_VALUE]
VIMAR = {f"vimar:{by}candidates={k}": k for by in ("", "by=score,") for k in (2, 3, 6, 30)}
PROFILE, PAPER = "visvm:candidates=6", "visvm:candidates=30"
TIMED = 16  # scenes, all in flight at once


def measure(scenes: int, repeats: int) -> dict[str, Any]:
    """CHAIRi of each search on held-out scenes, and its processor seconds a caption on the first of them."""
    profile = on_scenes("demo", 0, scenes, ("runtime.shards=1", f"runtime.batch_size={TIMED}"))
    with use_runtime(profile.runtime):
        bench = prepare_bench(profile, (*VISVM, *VIMAR))
        configs = {spec: config_of(bench, spec) for spec in (*VISVM, *VIMAR)}
        quality = {spec: arm(bench, spec).scores.figures for spec in configs}
        torch.set_num_threads(1)
        times: dict[str, list[tuple[float, float]]] = {spec: [] for spec in configs}
        for _ in range(repeats):
            for spec, config in configs.items():
                times[spec].append(timed(bench, config))
    captions = min(TIMED, scenes)
    return {
        spec: {
            "chair_i": quality[spec]["chair_i"],
            "recall": quality[spec]["recall"],
            "cpu_per_caption": statistics.median(cpu for cpu, _ in runs) / captions,
            "wall_per_caption": statistics.median(wall for _, wall in runs) / captions,
        }
        for spec, runs in times.items()
    }


def timed(bench: Bench, config: SearchConfig) -> tuple[float, float]:
    """Processor and wall seconds of one search of the first scenes, models loaded."""
    images, samples = bench.context.benchmark.images, bench.context.benchmark.samples
    rows = lake.read_rows(Sample, samples)[:TIMED]
    guide = guide_for(bench.context, bench.guide, config)
    searcher = Searcher(config, bench.context.base, guide, seed=bench.profile.seed)
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in searcher.run(rows, Pictures(images, rows)):
        pass
    return time.process_time() - cpu, time.perf_counter() - wall


def ratios(measured: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """VisVM's seconds over those of the fastest ViMaR whose CHAIRi is no higher, None where there is none.

    Against VisVM with the papers' 30 candidates a step, with the profile's 6, with values alone on both sides, and at equal
    candidates.
    """
    pairs = {
        "vimar_vs_visvm": (PAPER, list(VIMAR)),
        "vimar_vs_visvm_profile": (PROFILE, list(VIMAR)),
        "vimar_vs_visvm_value_only": (BY_VALUE, [spec for spec in VIMAR if "by=" not in spec]),
    }
    for candidates, visvm in ((30, PAPER), (6, PROFILE)):
        same = [spec for spec, k in VIMAR.items() if k == candidates]
        pairs[f"vimar_vs_visvm_equal_candidates_{candidates}"] = visvm, same
    results: dict[str, Any] = {}
    for name, (visvm, specs) in pairs.items():
        results[name], results[f"{name}_by"] = _fastest(measured, visvm, specs)
    return results


def _fastest(
    measured: Mapping[str, Mapping[str, float]], visvm: str, specs: Sequence[str]
) -> tuple[float | None, str | None]:
    good = [spec for spec in specs if measured[spec]["chair_i"] <= measured[visvm]["chair_i"]]
    if not good:
        return None, None
    best = min(good, key=lambda spec: measured[spec]["cpu_per_caption"])
    return measured[visvm]["cpu_per_caption"] / measured[best]["cpu_per_caption"], best
