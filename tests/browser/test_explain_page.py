"""The page of `visloop caption --explain` in a real browser: quiet, whole at any width, and true in its bars."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tasks.report.explain_page import write_page
from tasks.search.caption import Described
from tests.support.made_captions import answers, draw, guided, revised

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explained")
    paths = draw(folder, ["street.jpg", "kitchen.png", "a-" + "very-" * 30 + "long-name.png"])
    made = [Described(path, make()) for path, make in zip(paths, (guided, answers, revised), strict=True)]
    page = folder / "explain.html"
    write_page(page, made, {"strategy": "visvm", "policy": "o" * 200, "prompt": "Describe the following image."})
    return page


def _opened(browser: Any, page: Path, **options: Any) -> tuple[Any, list[str]]:
    """The page without JavaScript of its own, and everything it requested or complained about."""
    opened, trouble = browser.new_page(java_script_enabled=False, **options), []
    opened.on("console", lambda message: trouble.append(f"console: {message.text}"))
    opened.on("request", lambda request: trouble.append(request.url) if not request.url.startswith("data:") else None)
    opened.goto(page.as_uri())
    return opened, [entry for entry in trouble if entry != page.as_uri()]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fetches_nothing_complains_of_nothing_and_shows_its_pictures(
    browser: Any, written: Path, scheme: str, tmp_path: Path
) -> None:
    page, trouble = _opened(browser, written, viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    assert trouble == []
    assert page.eval_on_selector_all("article img", "all => all.map(i => i.naturalWidth)") == [640, 640, 640]
    screenshots = Path(os.environ.get("VISLOOP_SCREENSHOTS", tmp_path))
    shot = screenshots / f"explain-{scheme}.png"
    page.screenshot(path=shot, full_page=True)
    assert shot.stat().st_size > 30_000


def test_bars_are_as_long_as_their_values_and_negative_ones_go_the_other_way(browser: Any, written: Path) -> None:
    page, _ = _opened(browser, written, viewport={"width": 1280, "height": 900})
    boxes = page.eval_on_selector_all(
        "article:first-of-type .bar",
        "all => all.map(b => [b.getBoundingClientRect().x, b.getBoundingClientRect().width])",
    )
    values = [row.value for row in guided().trace if row.value is not None]
    assert len(boxes) == len(values)
    zero, pixels = boxes[0][0], boxes[0][1] / values[0]
    for (left, width), value in zip(boxes, values, strict=True):
        assert width == pytest.approx(max(2, abs(value) * pixels), abs=1)
        assert (left + width if value < 0 else left) == pytest.approx(zero, abs=1)


def test_a_chosen_candidate_looks_different_from_the_others(browser: Any, written: Path) -> None:
    page, _ = _opened(browser, written, color_scheme="light")
    look = "e => [getComputedStyle(e).backgroundColor, getComputedStyle(e).color]"
    chosen, other = (page.eval_on_selector(f"tr{of} td.text", look) for of in (".chosen", ":not(.chosen, .head)"))
    assert chosen[0] != other[0] and chosen[1] != other[1]


@pytest.mark.parametrize("width", [390, 800, 1600])
def test_nothing_runs_out_of_the_page_at_any_width(browser: Any, written: Path, width: int) -> None:
    page, _ = _opened(browser, written, viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_it_prints_in_black_on_white(browser: Any, written: Path) -> None:
    page, _ = _opened(browser, written, color_scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
