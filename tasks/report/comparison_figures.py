"""The comparison's plots: quality against work with the Pareto front ringed, and quality over the number of candidates.

Every line is named where it is, in its colour; names are moved until none lies on another name or on a point.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

from tasks.report import figures
from tasks.report.comparison_points import Point, by_spec, front
from tasks.report.figures import ACCENT, INK, MARKERS, SECOND, TEAL, WARM, Format
from tasks.report.rounds import COLUMNS

METRICS = ("chair_i", "recall")
COLOURS = {"greedy": INK, "best_of_n": SECOND, "clip_prm": TEAL, "visvm": ACCENT, "vimar": WARM}
OTHERS = ("#0284c7", "#c026d3", "#65a30d", "#a16207", "#be185d", "#4d7c0f", "#7c3aed", "#0e7490")
NAMES = 0.2  # of the width, at its right, is for names
GAP = 17.0  # pixels between names

Lines = dict[str, tuple[Any, Any]]  # spec -> x and y of its points


class _Look(NamedTuple):
    colour: str
    marker: str


def work_figure(points: Sequence[Point], work: str, kind: Format = "svg") -> bytes:
    """CHAIRi and Recall against work a caption (`tokens` or `seconds`), a line a spec, the Pareto front in rings."""

    def draw(axes: Axes, metric: str, looks: dict[str, _Look]) -> Lines:
        best = front(points, metric, work)
        ringed = [point for point in points if point.name in best]
        axes.scatter(
            [getattr(point, work) for point in ringed], [point.cells[metric].value for point in ringed],
            s=120, facecolors="none", edgecolors=INK, linewidths=1.1, zorder=1.5,
        )  # fmt: skip
        lines = {}
        for spec, line in by_spec(points).items():
            lines[spec] = ([getattr(point, work) for point in line], _values(line, metric))
            _plot(axes, *lines[spec], looks[spec])
        axes.set_xscale("log")
        _make_room(axes, metric)
        figures.round_ticks(axes)
        axes.set_xlabel({"tokens": "tokens decoded a caption", "seconds": "seconds a caption"}[work])
        return lines

    return _two_panels(points, draw, kind)


def budget_figure(points: Sequence[Point], kind: Format = "svg") -> bytes:
    """CHAIRi and Recall over the number of candidates, with intervals; what has no number is a dashed level."""
    widths = sorted({point.width for point in points if point.width is not None}) or [1]

    def draw(axes: Axes, metric: str, looks: dict[str, _Look]) -> Lines:
        lines: Lines = {}
        for index, (spec, line) in enumerate(by_spec(points).items()):
            colour, values = looks[spec].colour, _values(line, metric)
            if line[0].width is None:
                lines[spec] = ([widths[0], widths[-1]], [values[0], values[0]])
                axes.plot(*lines[spec], color=colour, linewidth=1.1, linestyle=(0, (5, 3)))
                continue
            # Side by side: intervals at one number of candidates would cover each other.
            at = np.array([point.width for point in line], float) * 1.025**index
            cells = [point.cells[metric] for point in line]
            spread = figures.error_lengths(values, [cell.low for cell in cells], [cell.high for cell in cells])
            axes.errorbar(at, values, yerr=spread, fmt="none", ecolor=colour, elinewidth=1, alpha=0.6)
            lines[spec] = (at, values)
            _plot(axes, at, values, looks[spec])
        axes.set_xscale("log", base=2)
        axes.set_xticks(widths, [str(width) for width in widths])
        _make_room(axes, metric)
        axes.set_xlabel("candidates")
        return lines

    return _two_panels(points, draw, kind)


def _two_panels(points: Sequence[Point], draw: Callable[[Axes, str, dict[str, _Look]], Lines], kind: Format) -> bytes:
    """A panel a metric; `draw` gives the lines it drew, to be named."""
    looks = _looks(list(by_spec(points)))
    with figures.panels(len(METRICS), (10.4, 4.1), w_pad=0.1) as (figure, places):
        canvas, drawn = FigureCanvasAgg(figure), []
        for axes, metric in zip(places, METRICS, strict=True):
            axes.set_title(COLUMNS[metric].heading)
            drawn.append(draw(axes, metric, looks))
            figures.finish_x(axes)
        canvas.draw()
        figure.set_layout_engine("none")  # names are placed on what stands fast
        for axes, lines in zip(places, drawn, strict=True):
            _name_lines(axes, canvas.get_renderer(), lines, looks)
        return figures.encode(figure, kind)


def _looks(specs: Sequence[str]) -> dict[str, _Look]:
    """A strategy by its plain name always has the same colour; others take what is left, in order."""
    rest = iter(OTHERS * (1 + len(specs) // len(OTHERS)))
    return {spec: _Look(COLOURS.get(spec) or next(rest), MARKERS[i % len(MARKERS)]) for i, spec in enumerate(specs)}


def _plot(axes: Axes, at: Any, values: Any, look: _Look) -> None:
    axes.plot(at, values, color=look.colour, marker=look.marker, markersize=5.5, linewidth=1.6, zorder=3)


def _values(line: Sequence[Point], metric: str) -> list[float]:
    return [point.cells[metric].value for point in line]


def _make_room(axes: Axes, metric: str) -> None:
    """Room for names at the right, and zero in sight for CHAIR."""
    low, high = axes.get_ylim()
    span = high - low or 1.0
    if metric == "chair_i":
        low = -0.04 * high if low < 0.5 * high else low
    axes.set_ylim(low - (0.1 * span if metric == "recall" else 0), high + 0.06 * span)
    left, right = np.log(axes.get_xlim())
    if right - left < np.log(3):  # at least a factor of three: else a tiny difference looks large
        middle = (left + right) / 2
        left, right = middle - np.log(3) / 2, middle + np.log(3) / 2
    axes.set_xlim(np.exp(left), np.exp(right + (right - left) * (NAMES + 0.04) / (1 - NAMES - 0.04)))
    axes.yaxis.set_major_locator(MaxNLocator(6))


def _name_lines(axes: Axes, renderer: Any, lines: Lines, looks: dict[str, _Look]) -> None:
    """Name the lines in a column at the right, each with a thin lead; single points where they are."""
    to_pixels = axes.transData.transform
    frame = axes.get_window_extent(renderer)
    long = {spec: to_pixels((at[-1], values[-1])) for spec, (at, values) in lines.items() if len(at) > 1}
    column = frame.x0 + frame.width * (1 - NAMES)
    order = sorted(long, key=lambda spec: float(long[spec][1]))
    heights = _apart([float(long[spec][1]) for spec in order], GAP, frame.y0 + GAP / 2, frame.y1)
    taken = [Bbox.from_extents(column, frame.y0, frame.x1, frame.y1)] if order else []
    for spec, height in zip(order, heights, strict=True):
        x, y = axes.transData.inverted().transform((column, height))
        colour, end = looks[spec].colour, (lines[spec][0][-1], lines[spec][1][-1])
        lead = {"arrowstyle": "-", "color": colour, "linewidth": 0.8, "alpha": 0.5, "shrinkA": 2, "shrinkB": 6}
        axes.annotate(
            spec, end, xytext=(x, y), textcoords="data", va="center", ha="left", fontsize=9, color=colour,
            arrowprops={**lead, "relpos": (0, 0.5)},
        )  # fmt: skip
    taken += [box for at, values in lines.values() for box in _covered(to_pixels(np.column_stack([at, values])))]
    for spec, (at, values) in lines.items():
        if len(at) == 1:
            _name_point(axes, renderer, spec, (at[0], values[0]), looks[spec].colour, taken)


def _apart(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Ascending positions near those wanted (ascending), at least `gap` apart, within the bounds if they fit."""
    at = list(wanted)
    for _ in range(200):
        for i in range(len(at) - 1):
            short = gap - (at[i + 1] - at[i])
            if short > 0:
                at[i], at[i + 1] = at[i] - short / 2, at[i + 1] + short / 2
        if at:
            at[0], at[-1] = max(at[0], low), min(at[-1], high)
    return at


def _covered(dots: np.ndarray) -> list[Bbox]:
    """Small boxes along a line through pixels [N, 2]."""
    pieces = [np.linspace(a, b, 2 + int(np.hypot(*(b - a)) / 6)) for a, b in pairwise(dots)]
    return [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in np.concatenate([dots, *pieces])]


def _name_point(axes: Axes, renderer: Any, name: str, dot: tuple[float, float], colour: str, taken: list[Bbox]) -> None:
    """Write a name beside its point, at the nearest of some places where it covers nothing."""
    text = axes.annotate(name, dot, xytext=(0, 0), textcoords="offset points", va="center", fontsize=9, color=colour)
    frame = axes.get_window_extent(renderer)
    sides: tuple[tuple[Literal["left", "right", "center"], int], ...] = (("left", 9), ("right", -9), ("center", 0))
    for up in sorted(range(-70, 71, 7), key=abs):
        for side, right in sides:
            text.set_horizontalalignment(side)
            text.set_position((right, up))
            box = text.get_window_extent(renderer)
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1 + GAP
            if inside and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                return
    taken.append(text.get_window_extent(renderer))
