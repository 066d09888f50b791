"""What all plots share: style and colours, panels, limits and ticks of axes, legends, bytes of an SVG or a PNG.

No global state, no pyplot, no file. The SVGs are made for embedding in a page: text and axes take the page's colours (light
or dark), and the same arrays give the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

Format = Literal["svg", "png"]

INK, MUTED, GRID = "#1c2024", "#6b7280", "#d9dce3"
ACCENT, SECOND, WARM, TEAL = "#5b5bd6", "#d97706", "#e5484d", "#0d9488"
MARKERS = "osD^vPX*"
# In a page these colours follow its theme; elsewhere the fall-back stands.
THEMED = {INK: "currentColor", MUTED: f"var(--muted, {MUTED})", GRID: f"var(--line, {GRID})"}

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


@contextmanager
def panels(
    count: int,
    size: tuple[float, float],
    *,
    rows: int = 1,
    share_y: bool = False,
    w_pad: float | None = None,
    h_pad: float | None = None,
) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure of `count` panels, `size` in inches; draw and encode it inside, where the style holds.

    `w_pad` and `h_pad` are inches around each panel.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=w_pad, h_pad=h_pad))
        axes_list: list[Axes] = list(np.ravel(figure.subplots(rows, -(-count // rows), sharey=share_y)))
        for empty in axes_list[count:]:
            empty.remove()
        yield figure, axes_list[:count]


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


def standalone(svg: bytes) -> bytes:
    """An SVG for a page that isn't ours: its own colours, on white."""
    text = svg.decode()
    for colour, themed in THEMED.items():
        text = text.replace(themed, colour)
    end = text.index(">", text.index("<svg")) + 1
    return (text[:end] + '<rect width="100%" height="100%" fill="#ffffff"/>' + text[end:]).encode()


def error_lengths(values: Sequence[float], lows: Sequence[float], highs: Sequence[float]) -> np.ndarray:
    """Lengths of the error bars [2, N]; 0 where an end is unknown."""
    below, above = np.array(values) - np.array(lows), np.array(highs) - np.array(values)
    return np.nan_to_num(np.maximum([below, above], 0.0))


def readable_limits(low: float, high: float, *, percent: bool, signed: bool = False) -> tuple[float, float]:
    """Limits that don't exaggerate: zero is in sight where it is near, small changes look small, nothing is past 100 %.

    `signed`: the metric may be negative, and such limits stay.
    """
    if low < 0.75 * high and not (signed and low < -0.1 * high):
        low, high = -0.03 * high, 1.05 * high  # the mark of a zero is not cut off
    elif high - low < 0.2 * high and not (signed and low <= 0):  # a tenth of a point would look like a cliff
        low, high = (low + high) / 2 - 0.1 * high, (low + high) / 2 + 0.1 * high
    return low, min(high, 102.0) if percent else high


def finish_x(axes: Axes, *, baseline: bool = True) -> None:
    """Numbers along x like those along y, no small ticks; `baseline`: a line at the lower end of y, whose limits are final."""
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", colors=MUTED, labelcolor=MUTED)
    if baseline:
        axes.axhline(axes.get_ylim()[0], color=GRID, linewidth=1.6)


def round_ticks(axes: Axes) -> None:
    """1, 2, 5, 10, 20 ... along a logarithmic x, written without powers."""
    low, high = axes.get_xlim()
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    ticks = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
    axes.set_xticks([tick for tick in ticks if low <= tick <= high])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def add_legend(figure: Figure, columns: int) -> None:
    """The names of all panels' series below them, where there are several."""
    series: dict[str, Any] = {}
    for axes in figure.axes:
        handles, names = axes.get_legend_handles_labels()
        series |= zip(names, handles, strict=True)
    if len(series) > 1:
        figure.legend(series.values(), series.keys(), loc="outside lower center", ncols=min(len(series), columns))
