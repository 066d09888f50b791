"""The end of an experiment: the figures of all its arms as one table.

`tasks.report.experiment` makes the page, the plot and the text from that table, so they can be made again at any time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from storage import lake, records, runs
from storage.artifacts import Table
from storage.schema import Comparison, Finding, Metric
from tasks.core.analysis.conclusions import each, figure, points, verdicts
from tasks.core.analysis.findings import Findings, line_of, listed, paired
from tasks.stage.calls import current_run
from tasks.stage.plan import Pending
from tasks.stage.quarantine import StageInputError
from tasks.stage.results import StageResult
from tasks.stage.stage import stage

__all__ = [
    "Evidence", "Findings", "conclude", "each", "figure", "findings_of", "line_of", "listed", "points", "spent", "totals",
    "verdicts",
]  # fmt: skip

# Counters of a search that are shown, for one caption: name -> (metric, factor).
WORK = {
    "decode_tokens": ("tokens", 1.0),
    "search_seconds": ("ms", 1000.0),
    "value_tokens": ("value_tokens", 1.0),
    "prefill_tokens": ("prefill_tokens", 1.0),
    "texts_embedded": ("texts_scored", 1.0),
}


@dataclass(frozen=True)
class Evidence:
    """What one arm of an experiment measured."""

    arm: str  # LINE@X if it is a point of a line
    x: float | None = None  # the swept number
    metrics: tuple[Table[Metric], ...] = ()  # NAME@I in them is a point of the line that the arm names
    pairs: Mapping[str, Table[Comparison]] = field(default_factory=dict)  # other arm -> comparisons with it
    work: Mapping[str, float] = field(default_factory=dict)  # counters of its search, of all captions together
    facts: Mapping[str, Any] = field(default_factory=dict)  # numbers as they are


@dataclass(frozen=True)
class FindingsResult(StageResult):
    """All figures of an experiment, and the names of its arms in order."""

    findings: Table[Finding]
    arms: list[str]


@stage()
def conclude(evidence: Sequence[Evidence], *, experiment: str, seed: int) -> FindingsResult:
    """All figures of an experiment in one table.

    Raises:
        StageInputError: an arm has a figure twice.
    """
    rows: list[Finding] = []
    for arm in evidence:
        rows += _rows(arm, experiment, seed)
    seen: dict[tuple[str, str], Finding] = {}
    for row in rows:
        if (row.arm, row.metric) in seen:
            raise StageInputError(f"experiment {experiment}: arm {row.arm!r} has {row.metric} twice; name arms apart")
        seen[row.arm, row.metric] = row
    return FindingsResult(lake.publish(Finding, rows), _ordered(rows))


def _ordered(rows: Sequence[Finding]) -> list[str]:
    """The arms as they came, the points of a line together and by x."""
    lines: dict[str, dict[str, float]] = {}
    for row in rows:
        line = row.arm if row.x is None else line_of(row.arm)
        lines.setdefault(line, {})[row.arm] = -math.inf if row.x is None else row.x
    return [arm for points in lines.values() for arm in sorted(points, key=lambda arm: points[arm])]


def _rows(evidence: Evidence, experiment: str, seed: int) -> list[Finding]:
    """The findings of one arm."""
    rows = []
    for metrics in evidence.metrics:
        for metric in lake.read_rows(Metric, metrics):
            name, at, suffix = metric.metric.partition("@")
            arm, x = (f"{evidence.arm}@{suffix}", float(suffix)) if at else (evidence.arm, evidence.x)
            ends = _known(metric.ci_low), _known(metric.ci_high)
            rows.append(Finding(experiment, arm, x, seed, name, metric.value, *ends, metric.n, _known(metric.stderr)))
    n = max((row.n for row in rows), default=0)
    for other, comparisons in evidence.pairs.items():
        for row in lake.read_rows(Comparison, comparisons):
            ends, spread = (_known(row.ci_low), _known(row.ci_high)), None if row.stderr is None else _known(row.stderr)
            name = paired(row.metric, other)
            rows.append(Finding(experiment, evidence.arm, evidence.x, seed, name, row.diff, *ends, row.n, spread))
    numbers = dict(evidence.facts)
    for counter, (name, factor) in WORK.items():
        if counter in evidence.work:
            numbers[name] = factor * evidence.work[counter] / n if n else math.nan
    for name, value in numbers.items():
        if isinstance(value, int | float):
            rows.append(Finding(experiment, evidence.arm, evidence.x, seed, name, float(value), None, None, n))
    return rows


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def findings_of(concluded: FindingsResult) -> Findings:
    """The figures of an experiment as `conclude` left them."""
    return Findings(lake.read_rows(Finding, concluded.findings), concluded.arms)


def spent(*stages: str) -> float:
    """Seconds that the current run's calls of these stages took when they were computed, in this run or an earlier one.

    NaN outside a run.
    """
    run = current_run()
    if run is None:
        return math.nan
    calls = {call.key: call.stage for call in runs.stage_runs(run[0]) if call.stage in stages}
    recalled = [records.load(stage, key)[0] for key, stage in calls.items()]
    return sum(record.seconds for record in recalled if record is not None)


def totals(line: str, searched: StageResult, captions: int, setup: float, counts: Sequence[int]) -> list[Evidence]:
    """Seconds of a search in all, by how many captions are wanted; nothing in a plan, which measures no seconds.

    Args:
        line: what the points are called.
        searched: the search's result; its counter `search_seconds` is of all its captions.
        captions: how many it searched.
        setup: seconds before the first.
        counts: numbers of captions.
    """
    if isinstance(searched, Pending):
        return []
    each = searched.counters["search_seconds"] / captions
    return [
        Evidence(f"{line}@{count}", float(count), facts={"total_seconds": setup + count * each}) for count in counts
    ]
