"""Is ViMaR "more than 4 times as fast as VisVM"? The work of both at equal candidates, guided by V on both sides.

    python -m benchmarks.vimar_work      writes benchmarks/results/vimar_work.json and .md

The demo's policy, and a V that reads image and text in a network of its own, as in the papers. Three ways:

    released shape    the released loops (`published`), called as the released code calls its models: batch 1, nothing shared
                      between candidates; the candidate counts of their code (6 a step; 12 answers) and of the papers (30)
    released loops    the same loops and the same captions, by this project's engine
    own loops         this project's loops by its engine

Work is of one image at a time, a caption: tokens decoded; sequential steps (the token positions that have to follow one
another: of each step the longest candidate's); tokens read before a candidate; V's tokens; forwards; images encoded, by policy
and V; CPU seconds on one thread. A row that is in the results is not measured again unless its inputs have changed. CHAIR is of
all scenes, work of the first of them.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.measured import metrics_of, on_scenes, options_parser, write_results
from benchmarks.search_shapes import Case, counted, shaped
from benchmarks.vimar_page import CODE, ENGINE, RELEASED, SAME_LOOPS, page
from flows.experiments.bench import Bench, arm, config_of, prepare_bench
from flows.round.guide import guide_for
from storage import lake
from storage.schema import Sample
from tasks.configs.search import SearchConfig, extended
from tasks.core.search.contract import SearchResult, Task
from tasks.core.search.registry import find
from tasks.models.engine import jobs_of
from tasks.models.loading import Pictures, load_policy, load_value
from tasks.search.searcher import settings_of
from tasks.stage.runtime import use_runtime

TEXT = ("value.reads=image_and_text", "value.train=full", "value.lr=3e-4", "value.epochs=2", "runtime.shards=1")
PUBLISHED = {"greedy": "greedy", "VisVM": "visvm:published=true", "ViMaR": "vimar:published=true"}
OWN = {"greedy": "greedy", "VisVM": "visvm", "ViMaR": "vimar:append=2", "ViMaR, nothing added": "vimar"}
REPEATS = 3  # of the engine's seconds; the released shape is measured once


class Way(NamedTuple):
    """A row of the table: how a search is called, and which."""

    kind: str  # released shape, released loops, own loops
    method: str
    spec: str
    candidates: int


class Work(NamedTuple):
    """The work of some captions, and what was written."""

    counts: dict[str, float]  # a caption
    seconds: float  # CPU seconds a caption
    texts: list[str]


def ways() -> list[Way]:
    """The rows in their order; a greedy answer has one candidate."""
    rows = []
    kinds = ((RELEASED, PUBLISHED, (6, CODE, 30)), (SAME_LOOPS, PUBLISHED, (6, CODE, 30)), (ENGINE, OWN, (6, 30)))
    for kind, specs, counts in kinds:
        rows += [Way(kind, "greedy", "greedy", 1)] if kind != SAME_LOOPS else []
        rows += [
            Way(kind, method, extended(spec, f"candidates={k}"), k)
            for k in counts
            for method, spec in specs.items()
            if method != "greedy"
        ]
    return rows


def sequential_steps(result: SearchResult) -> int:
    """Tokens that had to be drawn one after another: of each step as many as its longest candidate has.

    Exact for strategies whose steps are one request each, as VisVM's and ViMaR's are.
    """
    return sum(max(row.proposal.drawn for row in step) for _, step in groupby(result.trace, key=lambda row: row.step))


def work_of(bench: Bench, config: SearchConfig, shape: str, count: int) -> Work:
    """One search of the first `count` scenes, in a shape of `benchmarks.search_shapes`."""
    rows = lake.read_rows(Sample, bench.context.benchmark.samples)[:count]
    guide = guide_for(bench.context, bench.guide, config)
    settings, search = settings_of(config, guide), find(config.strategy).search
    assert bench.guide is not None and bench.guide.value_handle is not None
    policy, value = load_policy(bench.context.base), load_value(bench.guide.value_handle)
    pictures = Pictures(bench.context.benchmark.images, rows)
    with counted([policy, value.policy]) as fed:
        began = time.process_time()
        scheduler = shaped(shape, Case(policy, value, (), "", settings))
        jobs = jobs_of(
            rows, pictures, lambda sample: search(Task(sample.prompt, settings)), seed=("search", bench.profile.seed)
        )
        results = dict(scheduler.run(jobs))
        seconds = (time.process_time() - began) / len(rows)
    ordered = [results[index] for index in range(len(rows))]
    counts = counts_of(ordered, fed, scheduler.decoder.counters)
    return Work({name: n / len(rows) for name, n in counts.items()}, seconds, [result.text for result in ordered])


def counts_of(results: Sequence[SearchResult], fed: Counter[str], engine: Counter[str]) -> dict[str, int]:
    """The columns of the table, summed.

    Args:
        results: of the searches.
        fed: what the models were fed, as `counted` gives it.
        engine: the engine's own counters; empty in another shape, whose prompts are whole forwards.
    """
    read = engine["prefill_tokens"] + engine["read_tokens"]
    return {
        "decoded": sum(row.proposal.drawn for result in results for row in result.trace),
        "sequential": sum(map(sequential_steps, results)),
        "prefill": read or fed["prefill_tokens"],
        "value_tokens": fed["value_tokens"],
        "forwards": fed["forwards"] - fed["value_forwards"],
        "value_forwards": fed["value_forwards"],
        "images": fed["vision_encodes"],
    }


def measure(bench: Bench, way: Way, count: int) -> dict[str, Any]:
    """A row: CHAIR by the stages, work in the row's shape."""
    config = config_of(bench, way.spec)
    metrics = metrics_of(arm(bench, way.spec).scores)
    shape, repeats = ("released", 1) if way.kind == RELEASED else ("engine_1", REPEATS)
    runs = [work_of(bench, config, shape, count) for _ in range(repeats)]
    row = {**way._asdict(), "work": runs[0].counts, "seconds": statistics.median(run.seconds for run in runs)}
    row |= {name: metrics[name] for name in ("chair_i", "recall")}
    return row | {"texts": sha256(json.dumps(runs[0].texts).encode()).hexdigest()}


def check_same(rows: Iterable[Mapping[str, Any]]) -> None:
    """The released loops write the same captions whoever computes them.

    Raises:
        RuntimeError: if the released shape and the engine differ.
    """
    texts = {(row["kind"], row["spec"]): row["texts"] for row in rows}
    for (kind, spec), digest in texts.items():
        if kind == SAME_LOOPS and texts.get((RELEASED, spec), digest) != digest:
            raise RuntimeError(f"{spec}: the released shape has other captions than the engine: not the same search")


def inputs_of(bench: Bench, way: Way, count: int) -> str:
    """A digest of what a row depends on: models, search, scenes."""
    assert bench.guide is not None and bench.guide.value is not None
    config = config_of(bench, way.spec).model_dump(mode="json")
    digests = [bench.context.base.checkpoint.digest, bench.guide.value.value.digest]
    named = [*way, config, digests, bench.profile.evaluate.images, bench.profile.seed, count]
    return sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure the rows that are not there yet; each is written as soon as it is measured."""
    results: dict[str, Any] = {"scenes": options.scenes, "measured_scenes": options.measured, "seed": 0, "rows": []}
    earlier = known_rows(options.out)
    profile = on_scenes("demo", 0, options.scenes, (*TEXT, *options.overrides))
    with use_runtime(profile.runtime):
        bench = prepare_bench(profile, [way.spec for way in ways()])
        torch.set_num_threads(1)
        for way in ways():
            inputs = inputs_of(bench, way, options.measured)
            row = earlier.get(inputs) or {**measure(bench, way, options.measured), "inputs": inputs}
            results["rows"].append(row)
            kept = [*results["rows"], *(r for r in earlier.values() if r not in results["rows"])]
            write_results(options.out, {**results, "rows": kept}, "")
            print(f"{way.kind}, {way.method}, {way.candidates}: {1000 * row['seconds']:.0f} ms a caption", flush=True)
    check_same(results["rows"])
    return results


def known_rows(out: Path) -> dict[str, dict[str, Any]]:
    """Rows of earlier results by what they depend on."""
    rows = json.loads(out.read_text(encoding="utf-8"))["rows"] if out.is_file() else []
    return {row["inputs"]: row for row in rows}


def main() -> None:
    """Run, print and write."""
    parser = options_parser(__doc__, "vimar_work", scenes=60, seeds=())
    parser.add_argument("--measured", type=int, default=12, help="scenes whose work is measured")
    logging.getLogger("tasks.core.engine.fallback").setLevel(logging.ERROR)  # it warns that `generate` is slow
    options = parser.parse_args()
    results = run(options)
    text = page(results)
    write_results(options.out, results, text)
    print(text)


if __name__ == "__main__":
    main()
