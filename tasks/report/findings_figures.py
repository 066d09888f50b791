"""The one plot of an experiment: arms with their intervals, or lines over what was swept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from tasks.core.analysis.findings import Findings
from tasks.core.analysis.measures import measure_of
from tasks.report.figures import ACCENT, GRID, INK, MUTED, SECOND, STYLE, THEMED, WARM, Format, encode

COLOURS = (ACCENT, SECOND, "#0d9488", WARM, "#0284c7", "#c026d3", "#65a30d", "#a16207")
MARKERS = "osD^vPX*"
ARROWS = {"lower": " ↓", "higher": " ↑", "": ""}


class Plot(NamedTuple):
    """What is drawn: a panel a metric."""

    kind: Literal["arms", "lines"]  # arms: each on a row of its own; lines: over x, a line for LINE of LINE@X
    metrics: tuple[str, ...]
    x: str = ""  # lines: the title of x, or where it is a metric (tokens), that one is x
    log: bool = False  # lines: x by powers
    log_y: bool = False
    only: tuple[str, ...] = ()  # lines, or arms, that are drawn; all if left out


def draw(found: Findings, plot: Plot, kind: Format = "svg") -> bytes:
    """The plot as SVG in a page's colours, or as PNG."""
    with matplotlib.rc_context(STYLE):
        if plot.kind == "arms":
            return encode(_arms(found, plot), kind)
        return encode(_lines(found, plot), kind)


def standalone(svg: bytes) -> bytes:
    """An SVG for a page that isn't ours: its own colours, on white."""
    text = svg.decode()
    for colour, themed in THEMED.items():
        text = text.replace(themed, colour)
    end = text.index(">", text.index("<svg")) + 1
    return (text[:end] + '<rect width="100%" height="100%" fill="#ffffff"/>' + text[end:]).encode()


def _arms(found: Findings, plot: Plot) -> Figure:
    arms = [arm for arm in found.arms if any(found.has(arm, metric) for metric in plot.metrics)]
    arms = [arm for arm in arms if not plot.only or arm in plot.only]
    longest = max((len(arm) for arm in arms), default=0)
    width = 0.075 * longest + 2.9 * len(plot.metrics)
    figure = Figure(figsize=(max(width, 4.5), 0.95 + 0.3 * len(arms)), layout=_padded())
    panels = np.atleast_1d(figure.subplots(1, len(plot.metrics), sharey=True))
    for axes, metric in zip(panels, plot.metrics, strict=True):
        _title(axes, metric)
        axes.grid(visible=True, axis="x")
        axes.grid(visible=False, axis="y")
        for row, arm in enumerate(arms):
            cell = found.cell(arm, metric)
            if cell is not None and not math.isnan(cell.value):
                colour = INK if row == 0 else ACCENT  # the first is what the others are measured by
                spread = _spread([cell.value], [cell.low], [cell.high])
                axes.errorbar([cell.value], [row], xerr=spread, color=colour, marker="o", markersize=6, capsize=3)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.tick_params(axis="x", colors=MUTED, labelcolor=MUTED)
        _near_zero(axes, "x", metric)
    panels[0].set_yticks(range(len(arms)), arms)
    panels[0].tick_params(axis="y", labelcolor=INK)
    panels[0].set_ylim(len(arms) - 0.5, -0.5)
    return figure


def _lines(found: Findings, plot: Plot) -> Figure:
    lines = [line for line in found.lines() if not plot.only or line in plot.only]
    lines = [line for line in lines if any(_points(found, line, metric) for metric in plot.metrics)]
    figure = Figure(figsize=(max(3.5 * len(plot.metrics), 6.6), 3.6), layout=_padded())
    panels = np.atleast_1d(figure.subplots(1, len(plot.metrics)))
    for axes, metric in zip(panels, plot.metrics, strict=True):
        _title(axes, metric)
        for index, line in enumerate(lines):
            _line(axes, found, plot, line, metric, index)
        if plot.log:
            axes.set_xscale("log")
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_minor_formatter(NullFormatter())
        _ticks(axes, found, plot, lines)
        axes.set_xlabel(_x_title(plot))
        axes.tick_params(axis="x", colors=MUTED, labelcolor=MUTED)
        if plot.log_y:
            axes.set_yscale("log")
        else:
            _near_zero(axes, "y", metric)
        axes.axhline(axes.get_ylim()[0], color=GRID, linewidth=1.6)
    shown = {name: handle for axes in panels for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    if len(shown) > 1:
        figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=min(len(shown), 4))
    return figure


def _line(axes: Axes, found: Findings, plot: Plot, line: str, metric: str, index: int) -> None:
    """One line with intervals; an arm without x is a dashed level, or where x is work a point at its own."""
    colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
    arms = _points(found, line, metric)
    if not arms:
        return
    if arms == [line] and not _x_is_metric(plot):
        axes.axhline(found.cells(arms, metric)[0].value, color=colour, linewidth=1.3, linestyle=(0, (5, 3)), label=line)
        return
    cells = found.cells(arms, metric)
    values = [cell.value for cell in cells]
    spread = _spread(values, [cell.low for cell in cells], [cell.high for cell in cells])
    axes.errorbar(
        [_at(found, plot, arm) for arm in arms], values, yerr=spread, label=line, color=colour, marker=marker,
        markersize=5.5, linewidth=1.6, capsize=2.5, elinewidth=1,
    )  # fmt: skip


def _points(found: Findings, line: str, metric: str) -> list[str]:
    """The arms of a line that have the metric; the arm of that name where none has."""
    arms = [arm for arm in found.line(line) if found.has(arm, metric)] or [line]
    return [arm for arm in arms if not math.isnan(found.value(arm, metric))]


def _at(found: Findings, plot: Plot, arm: str) -> float:
    """Where an arm stands along x."""
    if _x_is_metric(plot):
        return measure_of(plot.x).scale * found.value(arm, plot.x)
    return float(found.x[arm] or 0.0)


def _ticks(axes: Axes, found: Findings, plot: Plot, lines: Sequence[str]) -> None:
    """What was swept stands at its own numbers; work at round ones."""
    if _x_is_metric(plot):
        if plot.log:
            low, high = axes.get_xlim()
            axes.set_xticks([d * 10.0**p for p in range(-3, 8) for d in (1, 2, 5) if low <= d * 10.0**p <= high])
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        return
    arms = [arm for line in lines for metric in plot.metrics for arm in _points(found, line, metric)]
    swept = sorted({float(x) for arm in arms if (x := found.x[arm]) is not None})
    if len(swept) <= 12:
        axes.set_xticks(swept, [f"{one:g}" for one in swept])
        near = len(swept) > 1 and min(np.diff(swept)) < 0.09 * (swept[-1] - swept[0]) and not plot.log
        axes.tick_params(axis="x", rotation=60 if near else 0)


def _x_is_metric(plot: Plot) -> bool:
    return plot.x in ("tokens", "ms")


def _x_title(plot: Plot) -> str:
    return {"tokens": "tokens decoded a caption", "ms": "milliseconds a caption"}.get(plot.x, plot.x)


def _padded() -> ConstrainedLayoutEngine:
    return ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)


def _title(axes: Axes, metric: str) -> None:
    measure = measure_of(metric)
    axes.set_title(measure.title + ARROWS[measure.better])


def _spread(values: Sequence[float], lows: Sequence[float], highs: Sequence[float]) -> np.ndarray:
    """Lengths of the error bars [2, N]; none where an end is unknown."""
    below, above = np.array(values) - np.array(lows), np.array(highs) - np.array(values)
    return np.nan_to_num(np.maximum([below, above], 0.0))


def _near_zero(axes: Axes, which: Literal["x", "y"], metric: str) -> None:
    """Zero stays in sight where it is near, so that small changes look small; nothing is drawn past 100 %."""
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    share = "%" in measure_of(metric).title
    high = max(high, 5.0) if share and low > -1 else high
    if -0.1 * high <= low < 0.75 * high:
        low, high = -0.03 * high, 1.05 * high
    elif low > 0 and high - low < 0.2 * high:
        low, high = (low + high) / 2 - 0.1 * high, (low + high) / 2 + 0.1 * high
    high = min(high, 102.0) if share else high
    (axes.set_xlim if which == "x" else axes.set_ylim)(low, high)
