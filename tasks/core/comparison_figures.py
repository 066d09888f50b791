"""The comparison's plots: quality against work with the Pareto front ringed, and quality over the number of candidates.

Every line is named where it is, in its colour; names are moved until none lies on another name or on a point.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator
from matplotlib.transforms import Bbox

from tasks.core.comparison import Point, by_spec, front
from tasks.core.figures import ACCENT, GRID, INK, MUTED, SECOND, STYLE, WARM, Format, encode
from tasks.core.round_summary import TITLES

METRICS = ("chair_i", "recall")
COLOURS = {"greedy": INK, "best_of_n": SECOND, "clip_prm": "#0d9488", "visvm": ACCENT, "vimar": WARM}
OTHERS = ("#0284c7", "#c026d3", "#65a30d", "#a16207", "#be185d", "#4d7c0f", "#7c3aed", "#0e7490")
MARKERS = "osD^vPX*"
ARROWS = {"chair_i": " ↓", "recall": " ↑"}
MARGIN = 0.3  # of the axis' range left free at its right, for names


class _Look(NamedTuple):
    colour: str
    marker: str


def work_figure(found: Sequence[Point], work: str, kind: Format = "svg") -> bytes:
    """CHAIRi and Recall against work a caption (`tokens` or `seconds`), a line a spec, the Pareto front in rings."""

    def draw(axes: Axes, metric: str, looks: dict[str, _Look]) -> None:
        best = front(found, metric, work)
        ringed = [point for point in found if point.name in best]
        axes.scatter(
            [getattr(point, work) for point in ringed], [point.cells[metric].value for point in ringed],
            s=120, facecolors="none", edgecolors=INK, linewidths=1.1, zorder=1.5,
        )  # fmt: skip
        for spec, line in by_spec(found).items():
            _plot(axes, [getattr(point, work) for point in line], _values(line, metric), looks[spec])
        axes.set_xscale("log")
        axes.set_xlabel({"tokens": "tokens decoded a caption", "seconds": "seconds a caption"}[work])

    return _two_panels(found, draw, lambda point: getattr(point, work), kind)


def budget_figure(found: Sequence[Point], kind: Format = "svg") -> bytes:
    """CHAIRi and Recall over the number of candidates, with intervals; what has no number is a dashed level."""
    widths = sorted({point.width for point in found if point.width is not None})

    def draw(axes: Axes, metric: str, looks: dict[str, _Look]) -> None:
        lines = by_spec(found)
        for index, (spec, line) in enumerate(lines.items()):
            look = looks[spec]
            if line[0].width is None:
                axes.axhline(line[0].cells[metric].value, color=look.colour, linewidth=1.1, linestyle=(0, (5, 3)))
                continue
            at = np.array([point.width for point in line], float) * 1.025 ** (index - len(lines) / 2)
            values = np.array(_values(line, metric))
            spread = [values - [p.cells[metric].low for p in line], [p.cells[metric].high for p in line] - values]
            axes.errorbar(
                at, values, yerr=np.maximum(spread, 0), fmt="none", ecolor=look.colour, elinewidth=1, alpha=0.6
            )
            _plot(axes, at, values, look)
        axes.set_xscale("log", base=2)
        axes.set_xticks(widths, [str(width) for width in widths])
        axes.set_xlabel("candidates")

    return _two_panels(found, draw, lambda point: point.width or max(widths, default=1), kind)


def _two_panels(
    found: Sequence[Point],
    draw: Callable[[Axes, str, dict[str, _Look]], None],
    where: Callable[[Point], float],
    kind: Format,
) -> bytes:
    """A panel a metric; `where` is the x of a point."""
    lines = by_spec(found)
    looks = _looks(list(lines))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.4, 4.1), layout="constrained")
        panels: list[Any] = list(figure.subplots(1, 2))
        for axes, metric in zip(panels, METRICS, strict=True):
            axes.set_title(TITLES[metric] + ARROWS[metric])
            draw(axes, metric, looks)
            _room(axes, metric)
            axes.xaxis.set_minor_locator(NullLocator())
            axes.tick_params(axis="x", colors=MUTED, labelcolor=MUTED)
            axes.axhline(axes.get_ylim()[0], color=GRID, linewidth=1.6)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        figure.set_layout_engine("none")  # names are placed on what stands fast
        for axes, metric in zip(panels, METRICS, strict=True):
            dots = [(where(point), point.cells[metric].value) for point in found]
            ends = {spec: (where(line[-1]), line[-1].cells[metric].value) for spec, line in lines.items()}
            _name_lines(axes, canvas.get_renderer(), ends, dots, looks)
        return encode(figure, kind)


def _looks(specs: Sequence[str]) -> dict[str, _Look]:
    """A strategy by its plain name always has the same colour; others take what is left, in order."""
    rest = iter(OTHERS * (1 + len(specs) // len(OTHERS)))
    return {spec: _Look(COLOURS.get(spec) or next(rest), MARKERS[i % len(MARKERS)]) for i, spec in enumerate(specs)}


def _plot(axes: Axes, at: Any, values: Any, look: _Look) -> None:
    axes.plot(at, values, color=look.colour, marker=look.marker, markersize=5.5, linewidth=1.6, zorder=3)


def _values(line: Sequence[Point], metric: str) -> list[float]:
    return [point.cells[metric].value for point in line]


def _room(axes: Axes, metric: str) -> None:
    """Room for names at the right; zero in sight for CHAIR, nothing above 100 %; numbers without powers."""
    low, high = axes.get_ylim()
    span = high - low or 1.0
    if metric == "chair_i":
        low = -0.04 * high if low < 0.5 * high else low
    axes.set_ylim(low - (0.1 * span if metric == "recall" else 0), high + 0.06 * span)
    left, right = np.log(axes.get_xlim())
    if right - left < np.log(3):  # at least a factor of three: else a tiny difference looks large
        middle = (left + right) / 2
        left, right = middle - np.log(3) / 2, middle + np.log(3) / 2
    axes.set_xlim(np.exp(left), np.exp(right + MARGIN * (right - left)))
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_minor_formatter(NullFormatter())
    if axes.xaxis.get_major_formatter().__class__.__name__.startswith("Log"):
        axes.set_xticks(_round_numbers(*axes.get_xlim()))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _round_numbers(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, 20 ... within the range."""
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    return [digit * 10.0**power for power in powers for digit in (1, 2, 5) if low <= digit * 10.0**power <= high]


def _name_lines(
    axes: Axes,
    renderer: Any,
    ends: dict[str, tuple[float, float]],
    dots: Sequence[tuple[float, float]],
    looks: dict[str, _Look],
) -> None:
    """Write each name beside its line's last point, at the nearest place where it covers nothing."""
    marks = [axes.transData.transform(dot) for dot in dots]
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in marks]
    frame = axes.get_window_extent(renderer).expanded(1.06, 1.0)
    shifts = sorted(((0, y) for y in range(-8, 9)), key=lambda shift: abs(shift[1]))
    for spec in sorted(ends, key=lambda one: -ends[one][1]):
        text = axes.annotate(
            spec, ends[spec], xytext=(9, 0), textcoords="offset points", va="center", ha="left",
            color=looks[spec].colour, fontsize=9,
        )  # fmt: skip
        for side in ("left", "right"):
            text.set_horizontalalignment(side)
            for _, up in shifts:
                text.set_position((9 if side == "left" else -9, 7 * up))
                box = text.get_window_extent(renderer).padded(1)
                inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
                if inside and not any(box.overlaps(other) for other in taken):
                    break
            else:
                continue
            break
        taken.append(text.get_window_extent(renderer).padded(1))
