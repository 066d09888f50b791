"""ViMaR against VisVM on the demo: seconds and CHAIRi, with a value model that was trained by the stages."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
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

WIDTHS = (6, 30)  # candidates: the profile's, the papers'
# Guided by V on both sides, and refined or grown by nothing else.
VISVM = {k: f"visvm:candidates={k}" for k in WIDTHS}
VIMAR = {k: f"vimar:candidates={k}" for k in WIDTHS}
SPECS = (*VISVM.values(), *VIMAR.values())
TIMED = 16  # scenes, all in flight at once


def measure(scenes: int, repeats: int) -> dict[str, Any]:
    """CHAIRi of each search on held-out scenes, and its processor seconds a caption on the first of them."""
    profile = on_scenes("demo", 0, scenes, ("runtime.shards=1", f"runtime.batch_size={TIMED}"))
    with use_runtime(profile.runtime):
        bench = prepare_bench(profile, SPECS)
        configs = {spec: config_of(bench, spec) for spec in SPECS}
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


def ratios(measured: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """VisVM's seconds over ViMaR's at equal candidates, guided by V on both sides, with what ViMaR's CHAIRi is above VisVM's.

    Where the papers' factor of four comes from is in `benchmarks.vimar_work`.
    """
    results: dict[str, float] = {}
    for k in WIDTHS:
        visvm, vimar = measured[VISVM[k]], measured[VIMAR[k]]
        results[f"vimar_vs_visvm_{k}"] = visvm["cpu_per_caption"] / vimar["cpu_per_caption"]
        results[f"vimar_vs_visvm_{k}_chair_i"] = vimar["chair_i"] - visvm["chair_i"]
    return results
