"""Strategies side by side: how each is widened, what each reached at which work, who is on the Pareto front.

Pure: rows of `metrics`, `comparisons` and `stages` in, points and lines of a table out. A search in a comparison is called by
its spec and its width, as visvm@6; the widths of one spec are one line of a plot.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tasks.report.rounds import Cell, round_rows

# What is widened where it is not `candidates`; None: nothing, such a strategy runs once.
WIDTHS: dict[str, str | None] = {
    "greedy": None,
    "sample": None,
    "contrastive": None,
    "stage_beam": "width",
    "swires": "captions",
}
LEAST = {"swires": 2, "diverse_beam": 2}  # one of its captions can't be the second best; one group isn't diverse

Record = Mapping[str, Any]


class Point(NamedTuple):
    """One search: what its captions reached, and the work of one caption, as it was counted."""

    name: str
    spec: str
    width: int | None  # None: it has none
    cells: dict[str, Cell]  # percent, words
    changes: dict[str, Cell]  # paired differences with greedy; empty for greedy
    tokens: float  # decoded by the policy, of all candidates and of its own verdicts
    seconds: float
    work: dict[str, float]  # every other counter
    cached: bool  # measured in an earlier run

    def error(self, metric: str) -> float:
        """The metric so that less is better, in percent."""
        value = self.cells[metric].value
        return 100 - value if metric == "recall" else value


def widened(spec: str, widths: Sequence[int]) -> list[tuple[str, str, int | None]]:
    """(name, spec with the width set, width) for each width; a single one without, if it has none or names it itself."""
    name, _, rest = spec.partition(":")
    key = WIDTHS.get(name, "candidates")
    if key is None or any(part.partition("=")[0] == key for part in rest.split(",")):
        return [(spec, spec, None)]
    wide = sorted({max(width, LEAST.get(name, 1)) for width in widths})
    return [(f"{spec}@{width}", f"{name}:{','.join(filter(None, (rest, f'{key}={width}')))}", width) for width in wide]


def points(
    metrics: Iterable[Record], comparisons: Iterable[Record], searches: Iterable[Record], names: Sequence[str]
) -> list[Point]:
    """A point for each of `names` that was searched and measured, in their order.

    `searches` are rows of `stages`, labelled by these names; of several of one name the first counts.
    """
    reached = {row.decoding: row for row in round_rows(metrics, comparisons, []) if row.subject == "base"}
    counted: dict[str, Record] = {}
    for row in searches:
        counted.setdefault(row["label"], row)
    measured = []
    for name in names:
        if name not in reached or name not in counted:
            continue
        spec, at, width = name.rpartition("@")
        cells = reached[name].cells
        captions = cells["chair_s"].n
        work = {counter: count / captions for counter, count in json.loads(counted[name]["counters"]).items()}
        measured.append(
            Point(
                name,
                spec if at else name,
                int(width) if at else None,
                cells,
                reached[name].changes,
                work.pop("decode_tokens", 0.0),
                work.pop("search_seconds", 0.0),
                work,
                bool(counted[name]["cached"]),
            )
        )
    return measured


def by_spec(points: Iterable[Point]) -> dict[str, list[Point]]:
    """The points of each spec, by width."""
    lines: dict[str, list[Point]] = {}
    for point in points:
        lines.setdefault(point.spec, []).append(point)
    return {spec: sorted(line, key=lambda point: point.width or 0) for spec, line in lines.items()}


def front(points: Sequence[Point], metric: str, work: str = "tokens") -> set[str]:
    """Names of the points that no other beats: none is as good with less work, or better with as much.

    Args:
        points: of one comparison.
        metric: chair_s, chair_i (less is better) or recall (more is).
        work: tokens or seconds.
    """
    best, names = float("inf"), set()
    # Equal points stay together: neither is beaten.
    level: tuple[float, float] | None = None
    for cost, error, name in sorted((getattr(point, work), point.error(metric), point.name) for point in points):
        if error < best or (cost, error) == level:
            best, level = error, (cost, error)
            names.add(name)
    return names


def token_budget(points: Sequence[Point], strategy: str, width: int) -> float:
    """Tokens a caption of a strategy at a width: what all are compared at.

    Where it was not searched at just that width, the next smaller one counts, else the smallest; without the strategy the
    first one that has widths.
    """
    lines = by_spec(points)
    wide = {spec: line for spec, line in lines.items() if line[0].width is not None}
    line = wide.get(strategy) or next(iter(wide.values()), points)
    within = [point for point in line if (point.width or 0) <= width]
    return (within[-1] if within else line[0]).tokens


def at_equal_work(points: Iterable[Point], budget: float) -> list[Point]:
    """Of each spec the widest point within the budget (tokens a caption); where none is, its narrowest."""
    chosen = []
    for line in by_spec(points).values():
        within = [point for point in line if point.tokens <= budget]
        chosen.append(within[-1] if within else line[0])
    return chosen
