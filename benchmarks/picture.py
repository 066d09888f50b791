"""Draws the README's picture and writes its printed table, both from one run: `python -m benchmarks.picture latest`.

The images are the first ones by sample id (a digest) in which the base model invents something; the others' captions of
them play no part.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import PIL.Image
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from flows.cli.output import print_rounds
from flows.cli.show import find_run
from storage import catalog
from storage.schema import Run
from tasks.report.figures import ACCENT, GRID, INK, MUTED, STYLE, WARM
from tasks.report.rounds import RoundRow
from tasks.report.run_report import run_rows
from tasks.stage.progress import duration

CHECKOUT = Path(__file__).resolve().parent.parent
PICTURE = CHECKOUT / "docs" / "demo.png"
PRINTED = CHECKOUT / "benchmarks" / "results" / "demo-run.json"
SHOWN = 3  # images
BACK = "#c9c5bb"  # a control's bar
PANELS = (("chair_i", "hallucinated mentions, % (CHAIRi)"), ("recall", "true objects mentioned, % (Recall)"))

ITEMS = """
    select item_id from scores
    where run_id = '{run}' and subject = 'base' and decoding = 'greedy' and metric = 'hallucinated' and value > 0
    order by item_id limit {count}
"""
CAPTION = """
    select any_value(detail) from scores
    where run_id = '{run}' and subject = '{subject}' and decoding = '{decoding}' and item_id = '{item}'
          and metric = 'mentioned'
"""
PIXELS = """
    select any_value(i.image.bytes) from samples s join images i using (run_id, image_id)
    where s.run_id = '{run}' and s.sample_id = '{item}'
"""


def draw(run: Run, rows: Sequence[RoundRow]) -> bytes:
    """The picture of a run as PNG."""
    shown = _shown(run, rows)
    items = [item for (item,) in catalog.query(ITEMS.format(run=run.run_id, count=SHOWN))[1]]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.4, 5.0))
        for index, item in enumerate(items):
            top = 0.965 - index * 0.325
            picture = figure.add_axes((0.015, top - 0.29, 0.14, 0.29))
            picture.imshow(_pixels(run.run_id, item))
            picture.axis("off")
            text = figure.add_axes((0.165, top - 0.29, 0.45, 0.29))
            text.axis("off")
            _write(figure, text, [(row.label, _caption(run.run_id, row, item)) for row in shown])
        for index, (metric, title) in enumerate(PANELS):
            _bars(figure.add_axes((0.765, 0.58 - 0.5 * index, 0.21, 0.335)), rows, metric, title)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=130, facecolor="white")
    return buffer.getvalue()


def _shown(run: Run, rows: Sequence[RoundRow]) -> list[RoundRow]:
    """Whose captions are shown: the base's, the search's, and the champion's."""
    return [row for row in rows if row.subject in ("base", run.champion) and not row.is_control]


def _caption(run_id: str, row: RoundRow, item: str) -> Mapping[str, Any]:
    """A caption with its mentions."""
    sql = CAPTION.format(run=run_id, subject=row.subject, decoding=row.decoding, item=item)
    return json.loads(catalog.query(sql)[1][0][0])


def _pixels(run_id: str, item: str) -> PIL.Image.Image:
    data = catalog.query(PIXELS.format(run=run_id, item=item))[1][0][0]
    return PIL.Image.open(io.BytesIO(data)).convert("RGB")


def _words(detail: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    """(word, whether it belongs to a hallucinated mention)."""
    at = 0
    for word in detail["caption"].split(" "):
        end = at + len(word)
        yield word, any(m["hallucinated"] and m["start"] < end and at < m["end"] for m in detail["mentions"])
        at = end + 1


def _write(figure: Figure, axes: Axes, captions: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """Captions one under the other, words wrapped, hallucinated ones in red."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    box = axes.get_window_extent(renderer)
    y = 1.0
    for label, detail in captions:
        axes.text(0, y, label, color=MUTED, fontsize=7.5, va="top", transform=axes.transAxes)
        y, x = y - 0.09, 0.0
        for word, wrong in _words(detail):
            style: dict[str, Any] = {"color": WARM, "fontweight": "bold"} if wrong else {"color": INK}
            drawn = axes.text(x, y, word, fontsize=8.4, va="top", transform=axes.transAxes, **style)
            width = drawn.get_window_extent(renderer).width / box.width
            if x + width > 1.0:
                x, y = 0.0, y - 0.098
                drawn.set_position((x, y))
            x += width + 0.012
        y -= 0.125


def _color(row: RoundRow) -> str:
    """The base and the controls stand back."""
    if row.is_control:
        return BACK
    return MUTED if (row.subject, row.decoding) == ("base", "greedy") else ACCENT


def _bars(axes: Axes, rows: Sequence[RoundRow], metric: str, title: str) -> None:
    """One metric of every line of the table, with intervals."""
    shown = [row.cells[metric] for row in rows]
    at = list(range(len(rows)))[::-1]
    colors = [_color(row) for row in rows]
    many = len(rows) > 5
    size = 6.2 if many else 8
    errors = [[max(0.0, cell.value - cell.low) for cell in shown], [max(0.0, cell.high - cell.value) for cell in shown]]
    axes.barh(at, [cell.value for cell in shown], xerr=errors, height=0.62, color=colors, ecolor=INK, capsize=2.5)
    labels = [row.label if many else row.label.replace(" (", "\n(") for row in rows]
    axes.set_yticks(at, labels, fontsize=size, color=INK)
    for y, cell in zip(at, shown, strict=True):
        axes.text(
            cell.high + 0.02 * max(cell.high for cell in shown), y, cell.text, va="center", fontsize=size, color=INK
        )
    axes.set_xlim(0, 1.2 * max(cell.high for cell in shown))
    axes.grid(axis="x", color=GRID)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="x", labelsize=7.5, labelcolor=MUTED)
    axes.set_title(title, fontsize=8.5, loc="left")


def printed(run: Run, rows: Sequence[RoundRow]) -> dict[str, str]:
    """What the command prints at a run's end into a file, and how long the run took."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        print_rounds(rows)
    end = f"run {run.run_id}, report artifacts/runs/{run.run_id}/report.html\n"
    return {"printed": out.getvalue() + end, "took": duration(run.seconds)}


def main() -> None:
    """Draw and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="?", default="latest", help="a run's id, or latest")
    run = find_run(parser.parse_args().run)
    rows = run_rows(run.run_id)
    PICTURE.write_bytes(draw(run, rows))
    PRINTED.parent.mkdir(exist_ok=True)
    PRINTED.write_text(json.dumps(printed(run, rows), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{PICTURE}\n{PRINTED}")


if __name__ == "__main__":
    main()
