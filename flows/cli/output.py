"""How tables look: rich in a terminal, plain aligned text (nothing cut off) in a pipe or a file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from tasks.report.rounds import RoundRow

CELL = 60  # characters of a cell shown in a terminal
GOOD, MIDDLING, BAD = (
    ("ok", "completed", "promoted", "cached"),
    ("warn", "running", "rejected", "run"),
    ("fail", "failed"),
)
TONES = {word: tone for words, tone in ((GOOD, "green"), (MIDDLING, "yellow"), (BAD, "red")) for word in words}


def console() -> Console:
    """Standard output as it is now (tests and pipes replace it); only a terminal breaks lines."""
    out = Console(file=sys.stdout, highlight=False)
    out.soft_wrap = not out.is_terminal
    return out


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str = "", cut: int = CELL) -> None:
    """A table; numbers to the right; in a terminal cells longer than `cut` are cut."""
    out = console()
    texts = [[plain(value) for value in row] for row in rows]
    right = [
        all(isinstance(row[i], int | float) or row[i] is None for row in rows) and rows for i in range(len(columns))
    ]
    if not out.is_terminal:
        _print_plain(columns, texts, [bool(r) for r in right], title)
        return
    table = Table(
        title=title or None, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim"
    )
    for column, numeric in zip(columns, right, strict=True):
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in texts:
        table.add_row(*(Text(_short(cell, cut), style=TONES.get(cell, "")) for cell in row))
    out.print(table)


def _print_plain(columns: Sequence[str], texts: list[list[str]], right: Sequence[bool], title: str) -> None:
    """Columns aligned by spaces, a line for each row."""
    lines = [list(columns), *([value.replace("\n", " ") for value in row] for row in texts)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    if title:
        sys.stdout.write(title + "\n")
    for line in lines:
        padded = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True)]
        sys.stdout.write("  ".join(padded).rstrip() + "\n")


def plain(value: Any) -> str:
    """A value as text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, bytes):
        return f"<{len(value):,} bytes>"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {plain(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(plain, value)) + "]"
    return str(value)


def print_rounds(rows: Sequence[RoundRow]) -> None:
    """The table of rounds, with intervals, and the decisions of the promotion gate."""
    from tasks.report.rounds import COLUMNS, NOTES, metrics_of

    if not rows:
        console().print("no benchmark figures")
        return
    metrics = metrics_of(rows)
    titles = ["", *(COLUMNS[metric].title for metric in metrics), "gate"]
    lines = []
    for row in rows:
        cells = [row.cells.get(metric) for metric in metrics]
        texts = [f"{cell.text} ({cell.interval})" if cell else "" for cell in cells]
        lines.append([row.label, *texts, row.decision])
    print_table(titles, lines)
    n = max((cell.n for row in rows for cell in row.cells.values()), default=0)
    answers = "accuracy" in metrics
    items, note = ("questions", NOTES["answers"]) if answers else ("images", NOTES["captions"])
    console().print(f"{n} held-out {items}; in brackets bootstrap intervals. {note}", style="dim")
    for row in rows:
        if row.decision:
            console().print(row.reason)


def _short(text: str, cut: int) -> str:
    """Text that fits a terminal's cell."""
    text = " ".join(text.split()) if "\n" in text else text
    return text if len(text) <= cut else text[: cut - 1] + "…"
