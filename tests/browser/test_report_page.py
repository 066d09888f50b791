"""The report in a real browser: nothing is fetched, nothing complains, pictures show, marks can be seen."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.report.run_report import write_report
from tests.support.made_run import make_run

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VISLOOP_HOME", str(tmp_path_factory.mktemp("store")))
        yield write_report(make_run())


def _opened(browser: Any, report: Path, **options: Any) -> tuple[Any, list[str]]:
    """The page, and everything it requested or complained about."""
    page, trouble = browser.new_page(**options), []
    page.on("console", lambda message: trouble.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: trouble.append(f"error: {error}"))
    page.on("request", lambda request: trouble.append(request.url) if not request.url.startswith("data:") else None)
    page.goto(report.as_uri())
    return page, [entry for entry in trouble if entry != report.as_uri()]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fetches_nothing_complains_of_nothing_and_shows_its_pictures(
    browser: Any, report: Path, scheme: str, tmp_path: Path
) -> None:
    page, trouble = _opened(browser, report, viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    assert trouble == []
    assert page.title().startswith("demo")
    widths = page.eval_on_selector_all("article img", "images => images.map(i => i.complete ? i.naturalWidth : 0)")
    assert len(widths) == 12 and min(widths) > 0
    assert (
        page.eval_on_selector_all("svg", "all => all.filter(s => s.getBoundingClientRect().height > 100).length") == 5
    )
    screenshots = Path(os.environ.get("VISLOOP_SCREENSHOTS", tmp_path))
    shot = screenshots / f"report-{scheme}.png"
    page.screenshot(path=shot, full_page=True)
    assert shot.stat().st_size > 50_000


def test_a_hallucinated_word_looks_different_from_a_true_one(browser: Any, report: Path) -> None:
    page, _ = _opened(browser, report, color_scheme="light")
    look = "e => { const s = getComputedStyle(e); return [s.textDecorationLine, s.textDecorationStyle, s.color] }"
    false, true = page.eval_on_selector("article mark.false", look), page.eval_on_selector("article mark.true", look)
    assert false[:2] == ["underline", "wavy"] and true[:2] == ["underline", "solid"]
    assert false[2] != true[2]
    assert page.eval_on_selector("article mark.false", "e => e.title").endswith("not in the image")


@pytest.mark.parametrize("width", [390, 800, 1600])
def test_nothing_runs_out_of_the_page_at_any_width(browser: Any, report: Path, width: int) -> None:
    page, _ = _opened(browser, report, viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_it_prints_in_black_on_white(browser: Any, report: Path) -> None:
    page, _ = _opened(browser, report, color_scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
