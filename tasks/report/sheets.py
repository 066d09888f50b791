"""What a rater gets of a blinded A/B sheet: a page, and an empty table. Neither shows who wrote what."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from storage import lake
from storage.artifacts import Table
from storage.schema import Image, SheetPair
from tasks.core.analysis.sheets import blank_ratings, sheet_id
from tasks.models.loading import load_images
from tasks.report.pages import inline_jpeg, render, write_whole

TEMPLATE = "sheets.html.jinja"
PICTURE = 560  # pixels of a shown image's longer side: 300 of them make a page of some 15 MB
READ_AT_ONCE = 32  # images


def write_sheets(
    folder: Path,
    key: Table[SheetPair],
    images: Table[Image],
    *,
    question: str = "Which description of the image is better?",
) -> list[Path]:
    """Write what a rater gets: a page that needs nothing but itself, and an empty file for who can't use it.

    Args:
        folder: where; made if need be.
        key: the `sheet_pairs` of the stage `sheets`.
        images: their images.
        question: for the raters.

    Returns:
        The paths of `sheet.html` and `ratings.csv`.
    """
    rows, sheet = lake.read_rows(SheetPair, key), sheet_id(key.digest)
    page = render(TEMPLATE, sheet=sheet, question=question, pairs=list(_views(rows, images)))
    blank = blank_ratings(sheet, [row.pair for row in rows])
    return [write_whole(folder / "sheet.html", page), write_whole(folder / "ratings.csv", blank)]


def _views(rows: Sequence[SheetPair], images: Table[Image]) -> Iterator[dict[str, Any]]:
    """What the page shows of each pair; images are read some at a time."""
    for start in range(0, len(rows), READ_AT_ONCE):
        part = rows[start : start + READ_AT_ONCE]
        pictures = load_images(images, [row.image_id for row in part])
        for row in part:
            picture, size = inline_jpeg(pictures[row.image_id], PICTURE, quality=80)
            yield {"picture": picture, "size": size, "pair": row.pair, "left": row.left_text, "right": row.right_text}
