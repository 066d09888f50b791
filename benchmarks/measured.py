"""What the benchmarks' tables are made of: a search's or a model's metrics, and their differences from another's."""

from __future__ import annotations

from flows.profiles.loading import Profile
from storage import lake
from storage.artifacts import StageOutput
from storage.schema import Comparison, Metric
from tasks.core.benchmarks.chair import METRICS
from tasks.evaluate.evaluate import compare

Figures = dict[str, list[float]]  # metric -> value, low and high end of its interval


def metrics_of(scores: StageOutput) -> Figures:
    """The metrics of one output of `evaluate`."""
    rows = {row.metric: row for row in lake.read_rows(Metric, scores["metrics"])}
    return {name: [rows[name].value, rows[name].ci_low, rows[name].ci_high] for name in METRICS}


def changes_of(profile: Profile, scores: StageOutput, baseline: StageOutput) -> Figures:
    """Its paired differences from another's."""
    paired = compare(profile.evaluate, scores["scores"], baseline["scores"], runtime=profile.runtime)
    rows = {row.metric: row for row in lake.read_rows(Comparison, paired["comparisons"])}
    return {name: [rows[name].diff, rows[name].ci_low, rows[name].ci_high] for name in METRICS}
