"""The plots of a run's report: the table of rounds, the scores of a round's sentences, and how well V predicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from tasks.report import figures
from tasks.report.figures import ACCENT, INK, MUTED, SECOND, WARM, Format

Numbers = Sequence[float] | np.ndarray
PANELS_IN_A_ROW = 4
MAX_POINTS = 1500  # more make the page heavy and the cloud no clearer
SIZE = (4.6, 3.5)  # inches, of a plot of one panel


class Line(NamedTuple):
    """One series over the rounds: at each x (index into the panel's labels) a value and its interval."""

    name: str
    at: Sequence[int]
    values: Sequence[float]
    lows: Sequence[float]
    highs: Sequence[float]


class Panel(NamedTuple):
    """One metric: its title, the names along x, and its series (the first is the one that is trained)."""

    title: str
    labels: Sequence[str]
    lines: Sequence[Line]


def rounds_figure(metrics: Sequence[Panel], kind: Format = "svg") -> bytes:
    """Small multiples, one a metric, with intervals; more than four of them in two rows."""
    rows = 1 if len(metrics) <= PANELS_IN_A_ROW else 2
    columns = -(-len(metrics) // rows)
    with figures.panels(len(metrics), (2.55 * columns, 2.7 * rows), rows=rows) as (figure, axes_row):
        for axes, metric in zip(axes_row, metrics, strict=True):
            _draw_metric(axes, metric)
        figures.add_legend(figure, columns=8)
        return figures.encode(figure, kind)


def _draw_metric(axes: Axes, metric: Panel) -> None:
    """One metric over the rounds; the series stand side by side."""
    axes.set_title(metric.title)
    for index, line in enumerate(metric.lines):
        axes.errorbar(
            np.asarray(line.at, float) + 0.16 * index, line.values,
            yerr=figures.error_lengths(line.values, line.lows, line.highs), label=line.name,
            color=(ACCENT, SECOND, WARM)[index % 3], marker="oD^"[index % 3], markersize=5.5, linewidth=1.6, capsize=3,
            elinewidth=1.2,
        )  # fmt: skip
    axes.set_xticks(range(len(metric.labels)), metric.labels)
    axes.set_xlim(-0.4, max(len(metric.labels) - 0.6, 0.6))
    axes.set_ylim(figures.readable_limits(*axes.get_ylim(), percent="%" in metric.title))


def value_figure(values: Numbers, returns: Numbers, spearman: float, kind: Format = "svg") -> bytes:
    """Predicted values [N] against the returns that followed [N], with the line of equality."""
    predicted, followed = np.asarray(values, float), np.asarray(returns, float)
    drawn = np.linspace(0, len(predicted) - 1, min(len(predicted), MAX_POINTS)).astype(int)
    with figures.panels(1, SIZE) as (figure, (axes,)):
        axes.grid(visible=True, axis="x")
        if len(predicted):
            ends = [min(predicted.min(), followed.min()), max(predicted.max(), followed.max())]
            axes.plot(ends, ends, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
            axes.scatter(followed[drawn], predicted[drawn], s=9, alpha=0.35, color=ACCENT, linewidths=0)
        axes.set_xlabel("discounted return that followed (Monte Carlo)")
        axes.set_ylabel("value predicted")
        axes.set_title(f"Spearman {spearman:.2f}, n = {len(predicted)}")
        return figures.encode(figure, kind)


def reward_figure(scores: Numbers, margin: float | None, kind: Format = "svg") -> bytes:
    """A histogram of the sentences' scores [N], with the margin below which they are penalized."""
    known = np.asarray(scores, float)
    with figures.panels(1, SIZE) as (figure, (axes,)):
        counts, edges = np.histogram(known, bins=min(48, max(8, len(known) // 12))) if len(known) else ([0], [0, 1])
        below = [margin is not None and right <= margin for right in edges[1:]]
        colours = [WARM if penalized else ACCENT for penalized in below]
        axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=colours, alpha=0.8)
        title = f"{len(known):,} sentences"
        if margin is not None:
            axes.axvline(margin, color=INK, linewidth=1.3)
            share = float((known < margin).mean()) if len(known) else 0.0
            title += f", {share:.0%} below the margin τ = {margin:.3f}"
        axes.set_title(title)
        axes.set_xlabel("similarity of image and sentence (cosine)")
        axes.set_ylabel("sentences")
        return figures.encode(figure, kind)
