"""The report's plots: arrays in, an SVG (or PNG) out. No global state, no pyplot, no file.

The SVGs are made for embedding in a page: text and axes take the page's colours (light or dark), and the same arrays
give the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Format = Literal["svg", "png"]
Numbers = Sequence[float] | np.ndarray

INK, MUTED, GRID = "#1c2024", "#6b7280", "#d9dce3"
ACCENT, SECOND, WARM = "#5b5bd6", "#d97706", "#e5484d"
# In a page these colours follow its theme; elsewhere the fall-back stands.
THEMED = {INK: "currentColor", MUTED: f"var(--muted, {MUTED})", GRID: f"var(--line, {GRID})"}
IN_A_LINE = 4  # panels
MAX_POINTS = 1500  # more make the page heavy and the cloud no clearer

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "visloop",
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": MUTED,
    "ytick.major.size": 0,
    "xtick.major.size": 0,
    "legend.frameon": False,
}


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


def rounds_figure(panels: Sequence[Panel], kind: Format = "svg") -> bytes:
    """Small multiples, one a metric, with intervals; more than four of them in two lines."""
    lines = 1 if len(panels) <= IN_A_LINE else 2
    columns = -(-len(panels) // lines)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.55 * columns, 2.7 * lines), layout="constrained")
        places = list(np.ravel(figure.subplots(lines, columns)))
        for axes, panel in zip(places, panels, strict=False):
            _draw_panel(axes, panel)
        for axes in places[len(panels) :]:
            axes.remove()
        handles, names = figure.axes[0].get_legend_handles_labels()
        if len(names) > 1:
            figure.legend(handles, names, loc="outside lower center", ncols=len(names))
        return encode(figure, kind)


def _draw_panel(axes: Axes, panel: Panel) -> None:
    """One metric over the rounds. Zero stays in sight where it is near, so small changes look small."""
    axes.set_title(panel.title)
    for index, line in enumerate(panel.lines):
        at = np.asarray(line.at, float) + 0.16 * index
        low = np.asarray(line.values) - np.asarray(line.lows)
        high = np.asarray(line.highs) - np.asarray(line.values)
        axes.errorbar(
            at, line.values, yerr=np.maximum([low, high], 0), label=line.name, color=(ACCENT, SECOND, WARM)[index % 3],
            marker="oD^"[index % 3], markersize=5.5, linewidth=1.6, capsize=3, elinewidth=1.2,
        )  # fmt: skip
    axes.set_xticks(range(len(panel.labels)), panel.labels)
    axes.set_xlim(-0.4, max(len(panel.labels) - 0.6, 0.6))
    low, high = axes.get_ylim()
    if low < 0.75 * high:
        low, high = -0.03 * high, 1.05 * high  # the mark of a zero is seen whole
    elif high - low < 0.2 * high:  # a zoom on a tenth of a point would show a cliff where there is none
        low, high = (low + high) / 2 - 0.1 * high, (low + high) / 2 + 0.1 * high
    if "%" in panel.title:
        high = min(high, 102.0)
    axes.set_ylim(low, high)


def value_figure(values: Numbers, returns: Numbers, spearman: float, kind: Format = "svg") -> bytes:
    """What the value model said against what followed, with the line of equality."""
    predicted, followed = np.asarray(values, float), np.asarray(returns, float)
    shown = np.linspace(0, len(predicted) - 1, min(len(predicted), MAX_POINTS)).astype(int)
    with matplotlib.rc_context({**STYLE, "axes.grid.axis": "both"}):
        figure = Figure(figsize=(4.6, 3.5), layout="constrained")
        axes = figure.subplots()
        if len(predicted):
            ends = [min(predicted.min(), followed.min()), max(predicted.max(), followed.max())]
            axes.plot(ends, ends, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
            axes.scatter(followed[shown], predicted[shown], s=9, alpha=0.35, color=ACCENT, linewidths=0)
        axes.set_xlabel("discounted return that followed (Monte Carlo)")
        axes.set_ylabel("value predicted")
        axes.set_title(f"Spearman {spearman:.2f}, n = {len(predicted)}")
        return encode(figure, kind)


def reward_figure(scores: Numbers, tau: float | None, kind: Format = "svg") -> bytes:
    """How the sentences scored, and where the margin cuts."""
    found = np.asarray(scores, float)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 3.5), layout="constrained")
        axes = figure.subplots()
        counts, edges = np.histogram(found, bins=min(48, max(8, len(found) // 12))) if len(found) else ([0], [0, 1])
        below = [tau is not None and right <= tau for right in edges[1:]]
        axes.bar(
            edges[:-1], counts, np.diff(edges), align="edge", color=[WARM if b else ACCENT for b in below], alpha=0.8
        )
        title = f"{len(found):,} sentences"
        if tau is not None:
            axes.axvline(tau, color=INK, linewidth=1.3)
            share = float((found < tau).mean()) if len(found) else 0.0
            title += f", {share:.0%} below the margin τ = {tau:.3f}"
        axes.set_title(title)
        axes.set_xlabel("similarity of image and sentence (cosine)")
        axes.set_ylabel("sentences")
        return encode(figure, kind)


def encode(figure: Figure, kind: Format) -> bytes:
    """The figure's bytes; an SVG comes without its XML head, with the page's colours."""
    buffer = io.BytesIO()
    if kind == "png":
        figure.savefig(buffer, format="png", dpi=110, facecolor="white")
        return buffer.getvalue()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue().decode()
    for colour, themed in THEMED.items():
        text = text.replace(colour, themed)
    return text[text.index("<svg") :].encode()
