"""The blinded sheet in a real browser: rated by keys alone, kept over a reload, downloaded as a file that can be scored."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from storage import lake
from storage.artifacts import Table
from storage.images import read_image_file
from storage.schema import Caption, Image, SheetPair
from tasks.analysis.sheets import open_ratings, score_sheets, sheets
from tasks.report.sheets import write_sheets
from tests.support.made_captions import draw

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

LONG = (
    "A red car waits at a crossing while a woman pushes a bicycle. Behind them a <b>bakery</b> has its sign lit. " * 4
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Table[SheetPair], Path]]:
    folder = tmp_path_factory.mktemp("sheets")
    rows = [
        read_image_file(path, image_id=path.name, source="made", split="test")
        for path in draw(folder / "pictures", [f"{i}.png" for i in range(6)])
    ]
    images = lake.publish(Image, rows)
    a, b = (
        lake.publish(Caption, [Caption(f"s{i}", f"{i}.png", "p", name, text, 1, "end", 1, 1) for i in range(6)])
        for name, text in (("a", 'A street. A <i>car</i>, "red".'), ("b", LONG))
    )
    key = sheets.fn(a, b, images, name_a="ours", name_b="theirs", pairs=6, seed=0).sheet_pairs
    yield key, write_sheets(folder / "pack", key, images)[0]


def opened(context: Any, page: Path) -> tuple[Any, list[str]]:
    """The page, and everything it requested or complained about."""
    shown, trouble = context.new_page(), []
    shown.on("console", lambda message: trouble.append(f"console: {message.text}"))
    shown.on("pageerror", lambda error: trouble.append(f"error: {error}"))
    shown.on("request", lambda request: trouble.append(request.url) if request.url.startswith("http") else None)
    shown.goto(page.as_uri())
    return shown, trouble


def test_a_rater_needs_keys_alone_and_the_file_scores(
    browser: Any, made: tuple[Table[SheetPair], Path], tmp_path: Path
) -> None:
    key, path = made
    context = browser.new_context(accept_downloads=True, viewport={"width": 1280, "height": 900})
    page, trouble = opened(context, path)
    for pressed in ("3", "1", "2", "n", "p", "3"):
        page.keyboard.press(pressed)
    assert page.text_content("#progress") == "4 of 6 rated"
    page.click("#download")
    assert page.text_content("#progress") == "Please give your name first"
    page.keyboard.type('=Eva "E", 123')  # digits in the name rate nothing
    page.reload()
    assert page.text_content("#progress") == "4 of 6 rated"
    page.focus("#pair-5 input[value='-1']")
    page.keyboard.press("Space")
    page.keyboard.press("ArrowRight")  # a group of radio buttons moves by arrows
    with page.expect_download() as waiting:
        page.click("#download")
    file = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(file)
    assert trouble == []
    assert file.name == "ratings-Eva-E-123.csv"
    page.evaluate("scrollTo(0, 0)")
    screenshots = Path(os.environ.get("VISLOOP_SCREENSHOTS", tmp_path))
    page.screenshot(path=screenshots / "sheet.png")
    context.close()

    output = score_sheets.fn(key, open_ratings([file]), subject="ours", seed=0, bootstrap=100)
    given = {1: 1, 2: -1, 3: 0, 4: 1, 5: 0}
    on_right = {row.pair: row.right == "ours" for row in lake.read_rows(SheetPair, key)}
    wins = sum(rating == (1 if on_right[pair] else -1) for pair, rating in given.items())
    assert (output.win_rate, output.raters, output.ratings) == (wins / 5, 1, 5)
    assert output.counters == {"refused": 0}


@pytest.mark.parametrize("width", [390, 800, 1600])
def test_nothing_runs_out_of_the_page_and_pictures_show(
    browser: Any, made: tuple[Table[SheetPair], Path], width: int
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme="dark")
    page, trouble = opened(context, made[1])
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.eval_on_selector_all("article img", "all => all.map(i => i.naturalWidth)") == [560] * 6
    assert page.text_content("#pair-1 .caption").startswith("A ")
    assert page.locator("article b, article i").count() == 0
    assert trouble == []
    if "VISLOOP_SCREENSHOTS" in os.environ:
        page.screenshot(path=Path(os.environ["VISLOOP_SCREENSHOTS"]) / f"sheet-{width}.png")
    context.close()
