"""The end of an experiment: the arms' figures as one table, then its page, its plot and its words.

`conclude` is the stage; what makes pages reads its table only, so a page can be made again at any time.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from storage import lake, records, runs
from storage.artifacts import Table
from storage.schema import Comparison, Finding, Metric
from tasks.core.analysis.findings import Findings, line_of, listed, paired
from tasks.core.analysis.measures import measure_of
from tasks.report.findings_figures import Plot, draw, standalone
from tasks.report.pages import inline_svg, render, write_whole
from tasks.report.views import data_uri
from tasks.stage.calls import current_run
from tasks.stage.results import StageResult, from_output
from tasks.stage.stage import Pending, StageInputError, stage

__all__ = [
    "PAGE",
    "Evidence",
    "Findings",
    "Plot",
    "Report",
    "conclude",
    "findings_of",
    "found_in",
    "line_of",
    "listed",
    "markdown",
    "spent",
    "standalone",
    "svg",
    "table",
    "totals",
    "write_page",
]

TEMPLATE = "experiment.html.jinja"
PAGE = "experiment.html"
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


class Report(NamedTuple):
    """An experiment as it is told."""

    name: str
    question: str
    method: str  # what was done, for whoever reads the figures
    columns: tuple[str, ...]  # metrics of the table
    plot: Plot
    paragraph: str
    again: str  # the command


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
            name, at, x = metric.metric.partition("@")
            arm, place = (f"{evidence.arm}@{x}", float(x)) if at else (evidence.arm, evidence.x)
            ends = _end(metric.ci_low), _end(metric.ci_high)
            rows.append(Finding(experiment, arm, place, seed, name, metric.value, *ends, metric.n))
    n = max((row.n for row in rows), default=0)
    for other, comparisons in evidence.pairs.items():
        for row in lake.read_rows(Comparison, comparisons):
            ends = _end(row.ci_low), _end(row.ci_high)
            name = paired(row.metric, other)
            rows.append(Finding(experiment, evidence.arm, evidence.x, seed, name, row.diff, *ends, row.n))
    numbers = dict(evidence.facts)
    for counter, (name, factor) in WORK.items():
        if counter in evidence.work:
            numbers[name] = factor * evidence.work[counter] / n if n else math.nan
    for name, value in numbers.items():
        if isinstance(value, int | float):
            rows.append(Finding(experiment, evidence.arm, evidence.x, seed, name, float(value), None, None, n))
    return rows


def _end(value: float) -> float | None:
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
    kept = [records.recall(stage, key)[0] for key, stage in calls.items()]
    return sum(record.seconds for record in kept if record is not None)


def totals(line: str, searched: StageResult, captions: int, setup: float, counts: Sequence[int]) -> list[Evidence]:
    """Seconds of a search in all, by how many captions are wanted; nothing in a plan, which knows no seconds.

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


def found_in(run_id: str) -> Findings:
    """The figures of an experiment's run."""
    (call,) = [call for call in runs.stage_runs(run_id) if call.stage == conclude.name]
    record, problem = records.recall(call.stage, call.key)
    if record is None:
        raise StageInputError(f"run {run_id}: its figures are gone ({problem}); run the experiment again")
    return findings_of(from_output(FindingsResult, record.output))


def table(found: Findings, columns: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """(titles, lines) of the table: a line an arm, `figure (interval)` in each cell; columns that nobody has are left out."""
    shown = [metric for metric in columns if any(found.has(arm, metric) for arm in found.arms)]
    lines = []
    for arm in found.arms:
        cells = [found.cell(arm, metric) for metric in shown]
        texts = ["" if one is None else f"{one.text} ({one.interval})" if one.interval else one.text for one in cells]
        if any(texts):
            lines.append([arm, *texts])
    return ["arm", *(measure_of(metric).title for metric in shown)], lines


def markdown(found: Findings, report: Report, *, plot: bool = True) -> str:
    """The experiment in Markdown, for Prefect's page and for a document; the plot is a picture inside."""
    titles, lines = table(found, report.columns)
    rows = ["| " + " | ".join(titles) + " |", "|---|" + "--:|" * (len(titles) - 1)]
    rows += ["| " + " | ".join(line) + " |" for line in lines]
    parts = [f"**{report.question}**", report.paragraph, "\n".join(rows)]
    if plot:
        parts.append(f"![{report.name}]({data_uri(draw(found, report.plot, 'png'), 'image/png')})")
    return "\n\n".join(parts)


def svg(found: Findings, plot: Plot) -> bytes:
    """The plot for a document."""
    return standalone(draw(found, plot))


def write_page(run_id: str, found: Findings, report: Report) -> Path:
    """Write an experiment's page into its run's folder; returns its path."""
    run = runs.load_run(run_id)
    profile = json.loads(run.config)
    columns = [metric for metric in report.columns if any(found.has(arm, metric) for arm in found.arms)]
    page = render(
        TEMPLATE,
        run=run,
        profile=profile,
        settings=json.dumps(profile, indent=1, ensure_ascii=False),
        found=found,
        report=report,
        columns=[(metric, measure_of(metric)) for metric in columns],
        arms=[arm for arm in found.arms if any(found.has(arm, metric) for metric in columns)],
        others=_differences(found),
        plot=inline_svg(draw(found, report.plot), report.question),
    )
    return write_whole(runs.run_folder(run_id) / PAGE, page)


def _differences(found: Findings) -> list[tuple[str, str, str, str]]:
    """(arm, other arm, metric, what may be said) of every paired difference."""
    lines = []
    for row in found.rows:
        metric, dash, other = row.metric.partition(" - ")
        if dash and row.seed == found.seeds[0]:
            lines.append((row.arm, other, measure_of(metric).title, found.compared(row.arm, other, metric)))
    order = {arm: i for i, arm in enumerate(found.arms)}
    return sorted(lines, key=lambda line: (order.get(line[1], 0), order[line[0]]))
