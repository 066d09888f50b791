"""The plot of an experiment: arms with their intervals, or lines over what was swept."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from tasks.core.analysis.findings import Findings
from tasks.core.analysis.measures import measure_of
from tasks.report import figures
from tasks.report.figures import ACCENT, INK, MARKERS, SECOND, TEAL, WARM, Format
from tasks.report.pages import ARROWS

COLOURS = (ACCENT, SECOND, TEAL, WARM, "#0284c7", "#c026d3", "#65a30d", "#a16207")
MEASURED_X = {"tokens": "tokens decoded a caption", "ms": "milliseconds a caption"}  # metrics that can be x
PADDING = 0.08  # inches


class Plot(NamedTuple):
    """What is drawn: a panel a metric."""

    kind: Literal["arms", "lines"]  # arms: each on a row of its own; lines: over x, a line for LINE of LINE@X
    metrics: tuple[str, ...]
    x: str = ""  # lines: the title of x, or where it is a metric (tokens), that one is x
    log: bool = False  # lines: x by powers
    log_y: bool = False
    only: tuple[str, ...] = ()  # lines, or arms, that are drawn; all if left out
    ringed: Callable[[Findings, str, str], list[str]] | None = None  # arms with a ring, by metric and x

    def draws(self, name: str) -> bool:
        """Whether a line or an arm is drawn."""
        return not self.only or name in self.only


def experiment_figure(findings: Findings, plot: Plot, kind: Format = "svg") -> bytes:
    """The plot as SVG in a page's colours, or as PNG."""
    return _draw_arms(findings, plot, kind) if plot.kind == "arms" else _draw_lines(findings, plot, kind)


def _draw_arms(findings: Findings, plot: Plot, kind: Format) -> bytes:
    arms = [arm for arm in findings.arms if plot.draws(arm) and any(findings.has(arm, m) for m in plot.metrics)]
    longest = max((len(arm) for arm in arms), default=0)
    size = max(0.075 * longest + 2.9 * len(plot.metrics), 4.5), 0.95 + 0.3 * len(arms)
    with figures.panels(len(plot.metrics), size, share_y=True, w_pad=PADDING, h_pad=PADDING) as (figure, axes_row):
        for axes, metric in zip(axes_row, plot.metrics, strict=True):
            _set_title(axes, metric)
            axes.grid(visible=True, axis="x")
            axes.grid(visible=False, axis="y")
            for row, arm in enumerate(arms):
                cell = findings.cell(arm, metric)
                if cell is not None and not math.isnan(cell.value):
                    colour = INK if row == 0 else ACCENT  # the first is what the others are measured by
                    spread = figures.error_lengths([cell.value], [cell.low], [cell.high])
                    axes.errorbar([cell.value], [row], xerr=spread, color=colour, marker="o", markersize=6, capsize=3)
            axes.xaxis.set_major_locator(MaxNLocator(5))
            figures.finish_x(axes, baseline=False)
            axes.set_xlim(_limits(*axes.get_xlim(), metric))
        axes_row[0].set_yticks(range(len(arms)), arms)
        axes_row[0].tick_params(axis="y", labelcolor=INK)
        axes_row[0].set_ylim(len(arms) - 0.5, -0.5)
        return figures.encode(figure, kind)


def _draw_lines(findings: Findings, plot: Plot, kind: Format) -> bytes:
    lines = [line for line in findings.lines() if plot.draws(line)]
    lines = [line for line in lines if any(_points(findings, line, metric) for metric in plot.metrics)]
    size = max(3.5 * len(plot.metrics), 6.6), 3.6
    with figures.panels(len(plot.metrics), size, w_pad=PADDING, h_pad=PADDING) as (figure, axes_row):
        for axes, metric in zip(axes_row, plot.metrics, strict=True):
            _set_title(axes, metric)
            for index, line in enumerate(lines):
                _draw_line(axes, findings, plot, line, metric, index)
            for arm in plot.ringed(findings, metric, plot.x) if plot.ringed else []:
                (cell,) = findings.cells([arm], metric)
                x = _x_of(findings, plot, arm)
                axes.plot([x], [cell.value], "o", markersize=12, fillstyle="none", color=INK, markeredgewidth=1)
            if plot.log:
                axes.set_xscale("log")
            _set_ticks(axes, findings, plot, lines)
            axes.set_xlabel(MEASURED_X.get(plot.x, plot.x))
            if plot.log_y:
                axes.set_yscale("log")
            else:
                axes.set_ylim(_limits(*axes.get_ylim(), metric))
            figures.finish_x(axes)
        figures.add_legend(figure, columns=4)
        return figures.encode(figure, kind)


def _draw_line(axes: Axes, findings: Findings, plot: Plot, line: str, metric: str, index: int) -> None:
    """One line with intervals; an arm without x is a dashed level, or where x is work a point at its own."""
    # Beyond the colours the markers move on, so that no two lines look alike.
    colour, marker = COLOURS[index % len(COLOURS)], MARKERS[(index + index // len(COLOURS)) % len(MARKERS)]
    arms = _points(findings, line, metric)
    if not arms:
        return
    cells = findings.cells(arms, metric)
    if arms == [line] and plot.x not in MEASURED_X:
        axes.axhline(cells[0].value, color=colour, linewidth=1.3, linestyle=(0, (5, 3)), label=line)
        return
    values = [cell.value for cell in cells]
    spread = figures.error_lengths(values, [cell.low for cell in cells], [cell.high for cell in cells])
    axes.errorbar(
        [_x_of(findings, plot, arm) for arm in arms], values, yerr=spread, label=line, color=colour, marker=marker,
        markersize=5.5, linewidth=1.6, capsize=2.5, elinewidth=1,
    )  # fmt: skip


def _points(findings: Findings, line: str, metric: str) -> list[str]:
    """The arms of a line that have the metric; the arm of that name where none has."""
    arms = [arm for arm in findings.line(line) if findings.has(arm, metric)] or [line]
    return [arm for arm in arms if not math.isnan(findings.value(arm, metric))]


def _x_of(findings: Findings, plot: Plot, arm: str) -> float:
    """Where an arm stands along x."""
    if plot.x in MEASURED_X:
        return measure_of(plot.x).scale * findings.value(arm, plot.x)
    return float(findings.x[arm] or 0.0)


def _set_ticks(axes: Axes, findings: Findings, plot: Plot, lines: Sequence[str]) -> None:
    """What was swept stands at its own numbers; work at round ones."""
    if plot.x in MEASURED_X:
        if plot.log:
            figures.round_ticks(axes)
        return
    arms = [arm for line in lines for metric in plot.metrics for arm in _points(findings, line, metric)]
    swept = sorted({float(x) for arm in arms if (x := findings.x[arm]) is not None})
    if len(swept) <= 12:
        axes.set_xticks(swept, [f"{x:g}" for x in swept])
        near = len(swept) > 1 and min(np.diff(swept)) < 0.09 * (swept[-1] - swept[0]) and not plot.log
        axes.tick_params(axis="x", rotation=60 if near else 0)


def _set_title(axes: Axes, metric: str) -> None:
    measure = measure_of(metric)
    axes.set_title(measure.title + ARROWS[measure.better])


def _limits(low: float, high: float, metric: str) -> tuple[float, float]:
    """Readable limits of an axis; a percentage's reach at least 5."""
    percent = "%" in measure_of(metric).title
    high = max(high, 5.0) if percent and low > -1 else high
    return figures.readable_limits(low, high, percent=percent, signed=True)
