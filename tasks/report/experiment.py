"""An experiment for people: its page, its plot, and its table for a terminal and in Markdown, from the table of findings."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from storage import lake, records, runs
from storage.schema import Finding
from tasks.core.analysis.findings import Findings
from tasks.core.analysis.measures import measure_of
from tasks.report.experiment_figures import Plot, experiment_figure
from tasks.report.figures import standalone
from tasks.report.pages import data_uri, inline_svg, markdown_lines, render, write_whole
from tasks.stage.quarantine import StageInputError

STAGE = "conclude"  # the stage that publishes the findings
TEMPLATE = "experiment.html.jinja"
PAGE = "experiment.html"


class Selection(NamedTuple):
    """The arms that the first table shows, with a note beside each."""

    title: str  # of the table
    arms: Callable[[Findings], list[str]]
    heading: str  # of the column of notes
    note: Callable[[Findings, str], str]


class Report(NamedTuple):
    """What an experiment's page shows beside the figures."""

    name: str
    question: str
    method: str  # what was done, for whoever reads the figures
    columns: tuple[str, ...]  # metrics of the table
    plots: tuple[Plot, ...]
    selection: Selection | None
    paragraph: str
    again: str  # the command


def load_findings(run_id: str) -> Findings:
    """The figures of an experiment's run.

    Raises:
        StageInputError: the store no longer has them.
    """
    (call,) = [call for call in runs.stage_runs(run_id) if call.stage == STAGE]
    record, problem = records.load(call.stage, call.key)
    if record is None:
        raise StageInputError(f"run {run_id}: its figures are gone ({problem}); run the experiment again")
    arms = record.output.facts.get("arms")
    rows = lake.read_rows(Finding, record.output.table(Finding, "findings"))
    return Findings(rows, [str(arm) for arm in arms] if isinstance(arms, list) else [])


def table(
    findings: Findings, columns: Sequence[str], selection: Selection | None = None
) -> tuple[list[str], list[list[str]]]:
    """(titles, lines) of the table: a line an arm, `figure (interval)` in each cell; columns that nobody has are left out."""
    shown = _measured(findings, columns)
    lines = []
    for arm in selection.arms(findings) if selection else findings.arms:
        cells = [findings.cell(arm, metric) for metric in shown]
        texts = [
            "" if cell is None else f"{cell.text} ({cell.interval})" if cell.interval else cell.text for cell in cells
        ]
        if any(texts):
            lines.append([arm, *texts, *([selection.note(findings, arm)] if selection else [])])
    notes = [selection.heading] if selection else []
    return ["arm", *(measure_of(metric).title for metric in shown), *notes], lines


def markdown(findings: Findings, report: Report) -> str:
    """The experiment in Markdown, for Prefect's page; the plot is a picture inside."""
    pictures = [data_uri(experiment_figure(findings, plot, "png"), "image/png") for plot in report.plots]
    figures = markdown_lines(*table(findings, report.columns, report.selection))
    parts = [f"**{report.question}**", report.paragraph, figures]
    return "\n\n".join([*parts, *(f"![{report.name}]({picture})" for picture in pictures)])


def svg(findings: Findings, plot: Plot) -> bytes:
    """The plot for a document."""
    return standalone(experiment_figure(findings, plot))


def write_page(run_id: str, findings: Findings, report: Report) -> Path:
    """Write an experiment's page into its run's folder; returns its path."""
    run = runs.load_run(run_id)
    profile = json.loads(run.config)
    columns = _measured(findings, report.columns)
    page = render(
        TEMPLATE,
        run=run,
        profile=profile,
        settings=json.dumps(profile, indent=1, ensure_ascii=False),
        findings=findings,
        report=report,
        columns=[(metric, measure_of(metric)) for metric in columns],
        arms=[arm for arm in findings.arms if any(findings.has(arm, metric) for metric in columns)],
        differences=_differences(findings),
        selected=report.selection.arms(findings) if report.selection else [],
        plots=[inline_svg(experiment_figure(findings, plot), report.question) for plot in report.plots],
    )
    return write_whole(runs.run_folder(run_id) / PAGE, page)


def _measured(findings: Findings, columns: Sequence[str]) -> list[str]:
    """The metrics that some arm has."""
    return [metric for metric in columns if any(findings.has(arm, metric) for arm in findings.arms)]


def _differences(findings: Findings) -> list[tuple[str, str, str, str]]:
    """(arm, other arm, metric, conclusion) of every paired difference."""
    lines = []
    for arm, name in dict.fromkeys((row.arm, row.metric) for row in findings.rows):
        metric, dash, other = name.partition(" - ")
        if dash:
            lines.append((arm, other, measure_of(metric).title, findings.compared(arm, other, metric)))
    order = {arm: i for i, arm in enumerate(findings.arms)}
    return sorted(lines, key=lambda line: (order.get(line[1], 0), order[line[0]]))
