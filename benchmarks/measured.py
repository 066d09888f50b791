"""What benchmarks on the demo's scenes share: options, profiles, metrics with their intervals, and how results are written."""

from __future__ import annotations

import argparse
import json
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.experiments.bench import HEAD
from flows.profiles.loading import Profile, load_profile
from storage import lake
from storage.schema import Comparison, Metric
from tasks.core.benchmarks.chair import METRICS
from tasks.evaluate.evaluate import EvaluateResult, compare

RESULTS = Path(__file__).parent / "results"
STATES = tuple(f"value.{name}={value}" for name, value in HEAD.items())  # V as a head on the policy's own states
Figures = dict[str, list[float]]  # metric -> value, low and high end of its interval
SCALES = {metric: 1 if metric == "length" else 100 for metric in METRICS}  # shares are shown in per cent


def options_parser(
    doc: str | None, name: str, *, scenes: int, seeds: Sequence[int] = (0, 1, 2)
) -> argparse.ArgumentParser:
    """Options of a benchmark that writes results/NAME.json; without `--seeds` if there are no default ones."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if seeds:
        parser.add_argument("--seeds", type=int, nargs="+", default=list(seeds))
    parser.add_argument("--scenes", type=int, default=scenes)
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--out", type=Path, default=RESULTS / f"{name}.json")
    return parser


def on_scenes(name: str, seed: int, scenes: int, overrides: Iterable[str] = ()) -> Profile:
    """A shipped profile, measured on so many held-out scenes."""
    return load_profile(name, [f"seed={seed}", f"evaluate.images={scenes}", *overrides])


def metrics_of(scores: EvaluateResult) -> Figures:
    """The metrics of one result of `evaluate`."""
    rows = {row.metric: row for row in lake.read_rows(Metric, scores.metrics)}
    return {name: [rows[name].value, rows[name].ci_low, rows[name].ci_high] for name in METRICS}


def changes_of(profile: Profile, scores: EvaluateResult, baseline: EvaluateResult) -> Figures:
    """Its paired differences from another's."""
    paired = compare(profile.evaluate, scores.scores, baseline.scores).comparisons
    rows = {row.metric: row for row in lake.read_rows(Comparison, paired)}
    return {name: [rows[name].diff, rows[name].ci_low, rows[name].ci_high] for name in METRICS}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Mean, lowest and highest over seeds."""
    return {"mean": statistics.mean(values), "lowest": min(values), "highest": max(values)}


def write_results(out: Path, results: dict[str, Any], page: str) -> None:
    """Results as JSON, and the page beside them."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    out.with_suffix(".md").write_text(page, encoding="utf-8")


def fill_blocks(page: str, text: str, blocks: Mapping[str, str]) -> str:
    """A page's text with these blocks between their marks.

    Raises:
        ValueError: a block's marks are missing, or there twice.
    """
    for name, block in blocks.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        pieces = re.split(f"{begin}.*?{end}", text, flags=re.S)
        if len(pieces) != 2:
            raise ValueError(f"{page} has {len(pieces) - 1} blocks {begin} ... {end}; exactly 1 is needed")
        text = f"{begin}\n{block}\n{end}".join(pieces)
    return text
