"""The table of rounds: what every subject reached, how sure that is, and what the gate decided.

Pure: rows of `metrics`, `comparisons` and `decisions` in, lines of a table out; the command, the report and the
Prefect artifact all print these same lines.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tasks.configs.evaluate import CONTROL, CONTROLS
from tasks.core.benchmarks.chair import METRICS
from tasks.report.pages import ARROWS, markdown_lines


class Column(NamedTuple):
    """A metric of the table of rounds."""

    title: str
    better: str  # lower, higher, or neither
    meaning: str

    @property
    def heading(self) -> str:
        """The title, with an arrow that shows which way is better."""
        return self.title + ARROWS[self.better]


COLUMNS = {
    "chair_s": Column("CHAIRs %", "lower", "captions with at least one hallucinated object"),
    "chair_i": Column("CHAIRi %", "lower", "hallucinated mentions among all mentions of objects"),
    "recall": Column("Recall %", "higher", "objects in the image that the caption mentions"),
    "accuracy": Column(
        "Accuracy %", "higher", "questions whose answer is right; of a staged answer the conclusion counts"
    ),
    "accuracy_what": Column("Is there %", "higher", "of the questions whether something is there"),
    "accuracy_how_many": Column("How many %", "higher", "of the questions for a number"),
    "accuracy_where": Column("Where %", "higher", "of the questions for a side"),
    "staged": Column("Staged %", "", "answers in four whole stages"),
    "length": Column("Length", "", "words a caption or answer"),
}
BENCHMARKS = {"captions": "chair", "answers": "vqa"}  # a profile's task -> what its rounds are compared by
NOTES = {
    "captions": "CHAIR: lower is better, Recall: higher.",
    "answers": "Accuracy: higher is better; of a staged answer only the conclusion counts.",
}

Record = Mapping[str, Any]


class Cell(NamedTuple):
    """An estimate with its interval, in the unit of the table (percent or words)."""

    value: float
    low: float
    high: float
    n: int

    @property
    def text(self) -> str:
        """The estimate."""
        return _number(self.value)

    @property
    def interval(self) -> str:
        """The interval; a dash where the spread is unknown."""
        known = not (math.isnan(self.low) or math.isnan(self.high))
        return f"{_number(self.low)} to {_number(self.high)}" if known else "—"


class RoundRow(NamedTuple):
    """One line: a subject under one decoding."""

    subject: str
    decoding: str
    cells: dict[str, Cell]
    changes: dict[str, Cell]  # against the base, greedy; empty for that line itself
    decision: str  # "", "promoted" or "rejected" (the champion stays)
    reason: str

    @property
    def label(self) -> str:
        """How people call it."""
        name = self.subject.replace("-", " ")
        if self.decoding == "staged":
            return f"{name}, instructed to answer in stages"
        if self.is_control:
            return f"{name} + {self.decoding.removeprefix(CONTROL)}"
        return f"{name}, greedy" if self.decoding == "greedy" else f"{name} + search ({self.decoding})"

    @property
    def is_control(self) -> bool:
        """Whether it only stands beside the search."""
        return self.decoding.startswith(CONTROL)


def round_rows(
    metrics: Iterable[Record], comparisons: Iterable[Record], decisions: Iterable[Record], benchmark: str = "chair"
) -> list[RoundRow]:
    """The lines in order: the base, the base with search, its controls, round 1, round 2 ..."""
    cells: dict[tuple[str, str], dict[str, Cell]] = {}
    for row in metrics:
        if row["benchmark"] == benchmark:
            cells.setdefault((row["subject"], row["decoding"]), {})[row["metric"]] = _cell(row, "value")
    changes: dict[tuple[str, str], dict[str, Cell]] = {}
    for row in comparisons:
        against_base = row["subject_b"] == "base" and row["decoding_b"] == "greedy"
        if row["benchmark"] == benchmark and against_base:
            changes.setdefault((row["subject_a"], row["decoding_a"]), {})[row["metric"]] = _cell(row, "diff")
    gate = {row["candidate"]: row for row in decisions}
    lines = []
    for subject, decoding in sorted(cells, key=_order):
        verdict = gate.get(subject) if decoding == "greedy" else None
        lines.append(
            RoundRow(
                subject,
                decoding,
                cells[subject, decoding],
                changes.get((subject, decoding), {}),
                "" if verdict is None else "promoted" if verdict["promoted"] else "rejected",
                "" if verdict is None else verdict["reason"],
            )
        )
    return lines


def metrics_of(rows: Sequence[RoundRow]) -> list[str]:
    """The metrics that a table of rounds has, in order; CHAIR's where it has none."""
    measured = {metric for row in rows for metric in row.cells}
    return [metric for metric in COLUMNS if metric in measured] or list(METRICS)


def markdown_table(rows: Sequence[RoundRow]) -> str:
    """The table in Markdown, intervals in brackets; narrow, for it is read in Prefect's pages."""
    metrics = metrics_of(rows)
    lines = []
    for row in rows:
        cells = [row.cells.get(metric) for metric in metrics]
        texts = [f"{cell.text} [{cell.interval.replace(' to ', ', ')}]" if cell else "" for cell in cells]
        lines.append([row.label, *texts])
    return markdown_lines(["", *(COLUMNS[metric].title for metric in metrics)], lines)


def _cell(row: Record, column: str) -> Cell:
    """A row's estimate in the table's unit: shares become percent."""
    scale = 1.0 if row["metric"] == "length" else 100.0
    return Cell(scale * row[column], scale * row["ci_low"], scale * row["ci_high"], row["n"])


def _order(key: tuple[str, str]) -> tuple[int, int, int, str]:
    """Base first, rounds by number; greedy before staged before search before controls."""
    number = re.search(r"\d+", key[0])
    title = key[1].removeprefix(CONTROL)
    kind = 3 if title != key[1] else {"greedy": 0, "staged": 1}.get(key[1], 2)
    control = next((i for i, begin in enumerate(CONTROLS) if title.startswith(begin)), len(CONTROLS))
    return int(number.group()) if number else 0, kind, control, key[1]


def _number(value: float) -> str:
    """One decimal, and no minus before a zero."""
    return "—" if math.isnan(value) else f"{value + 0.0 if round(value, 1) else 0.0:.1f}"
