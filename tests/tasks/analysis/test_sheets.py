"""The human-evaluation pack: a key that stays, a page that does not show who wrote what, and ratings that come back."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path

import pytest

from storage import lake
from storage.artifacts import Table
from storage.schema import Caption, Finding, Quarantined, SheetPair
from tasks.analysis.sheets import RatingFile, SheetScoresResult, SheetsResult, open_ratings, score_sheets, sheets
from tasks.core.analysis.sheets import sheet_id
from tasks.report.sheets import write_sheets
from tasks.stage.quarantine import StageInputError
from tests.support.small_world import captions_of, drawn

MINE = [f"Mine says <b>{number}</b> & more." for number in range(8)]
THEIRS = [f"Theirs says {number}." for number in range(7)] + [MINE[7]]


def drawn_sheets(pairs: int = 8, seed: int = 0, **changed: object) -> SheetsResult:
    given = {"name_a": "round-3", "name_b": "the-base", **changed}
    images = drawn(benchmark=True).images
    return sheets.fn(captions_of(MINE), captions_of(THEIRS), images, pairs=pairs, seed=seed, **given)


@pytest.fixture(scope="module")
def key() -> Table[SheetPair]:
    return drawn_sheets().sheet_pairs


def scored(key: Table[SheetPair], *files: RatingFile, subject: str = "round-3") -> SheetScoresResult:
    return score_sheets.fn(key, list(files), subject=subject, seed=7, bootstrap=100)


def rated(key: Table[SheetPair], rater: str, choose) -> RatingFile:
    rows = [f"{sheet_id(key.digest)},{rater},{row.pair},{choose(row)}" for row in lake.read_rows(SheetPair, key)]
    return RatingFile(name=f"from-{rater}", text="\n".join(["sheet,rater,pair,rating", *rows]))


def truthful(row: SheetPair) -> int:
    """Whoever looks at the texts: round-3's are better."""
    return 0 if row.left_text == row.right_text else 1 if row.right_text.startswith("Mine") else -1


def test_the_key_holds_which_caption_is_on_which_side() -> None:
    output = drawn_sheets()
    rows = lake.read_rows(SheetPair, output.sheet_pairs)
    assert [row.pair for row in rows] == list(range(1, 9))
    assert [row.left for row in rows].count("round-3") == 4
    for row in rows:
        mine = row.left_text if row.left == "round-3" else row.right_text
        assert mine.startswith("Mine") and {row.left, row.right} == {"round-3", "the-base"}
    assert output.counters == {"samples": 8, "identical": 1}
    assert drawn_sheets() == output != drawn_sheets(seed=1)


def test_the_page_needs_nothing_but_itself_and_does_not_show_who_wrote_what(
    key: Table[SheetPair], tmp_path: Path
) -> None:
    page, blank = write_sheets(tmp_path / "pack", key, drawn(benchmark=True).images)
    text = page.read_text(encoding="utf-8")
    assert "round-3" not in text and "the-base" not in text
    for row in lake.read_rows(SheetPair, key):
        assert row.sample_id not in text
    assert re.findall(r'(?:src|href)="(?!data:|#)[^"]*"|url\(|@import', text) == []
    assert text.count("data:image/jpeg;base64,") == 8
    assert "Mine says &lt;b&gt;1&lt;/b&gt; &amp; more." in text
    with blank.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["pair"] for row in rows] == [str(number) for number in range(1, 9)]
    assert {(row["sheet"], row["rater"], row["rating"]) for row in rows} == {(sheet_id(key.digest), "", "")}


def test_sides_are_turned_back_when_ratings_are_scored(key: Table[SheetPair]) -> None:
    output = scored(key, rated(key, "Eva", truthful), rated(key, "Ben", truthful))
    assert (output.win_rate, output.raters, output.ratings) == (7 / 8, 2, 16)
    rows = {(row.arm, row.metric): row for row in lake.read_rows(Finding, output.findings)}
    assert rows["round-3 against the-base", "cohen_kappa"].value == 1
    assert rows["round-3 against the-base, Eva", "win_rate"].n == 8
    assert rows["round-3 against the-base", "missing"].ci_low is None
    assert {(row.experiment, row.seed) for row in rows.values()} == {("human-eval", 7)}
    assert scored(key, rated(key, "Eva", truthful), subject="the-base").win_rate == 0


def test_who_always_chooses_the_right_side_wins_half_and_is_reported(key: Table[SheetPair]) -> None:
    output = scored(key, rated(key, "Eva", lambda row: 1))
    rows = {(row.arm, row.metric): row for row in lake.read_rows(Finding, output.findings)}
    assert output.win_rate == 0.5
    assert rows["round-3 against the-base", "right_rate"].value == 1


def test_rows_that_do_not_count_are_in_quarantine(key: Table[SheetPair]) -> None:
    good = rated(key, "Eva", truthful)
    sheet = sheet_id(key.digest)
    bad = RatingFile(name="bad", text=f"{good.text}\n{sheet},Eva,77,1\nother,Eva,1,1\n{sheet},Eva,1,0")
    output = scored(key, bad)
    refused = {row.item_id: row.reason for row in lake.read_rows(Quarantined, output.quarantine)}
    assert refused == {"bad:10": "unknown_pair", "bad:11": "other_sheet", "Eva pair 1": "contradiction"}
    assert output.ratings == 7


def test_ratings_of_another_sheet_are_an_error(key: Table[SheetPair]) -> None:
    other = drawn_sheets(seed=1).sheet_pairs
    with pytest.raises(StageInputError, match=r"1 files hold no rating of sheet .*from-Eva:2, of sheet"):
        scored(key, rated(other, "Eva", truthful))
    with pytest.raises(StageInputError, match="round-9 is not in this sheet, which compares round-3 and the-base"):
        scored(key, rated(key, "Eva", truthful), subject="round-9")
    with pytest.raises(StageInputError, match="odd: no column rating"):
        scored(key, RatingFile(name="odd", text="sheet,rater,pair\n"))


def test_files_are_opened_with_names_of_their_own(tmp_path: Path) -> None:
    paths = [tmp_path / folder / "ratings.csv" for folder in ("a", "b")]
    for path in paths:
        path.parent.mkdir()
        path.write_text("x", encoding="utf-8")
    assert [file.name for file in open_ratings(paths)] == ["ratings", "ratings-2"]
    paths[0].write_bytes("ä".encode("utf-16"))
    with pytest.raises(StageInputError, match="not UTF-8"):
        open_ratings(paths)
    with pytest.raises(StageInputError, match="can't be read"):
        open_ratings([tmp_path / "none.csv"])
    with pytest.raises(StageInputError, match="no files of ratings"):
        open_ratings([])


def test_pairs_that_can_not_be_made_are_errors() -> None:
    with pytest.raises(StageInputError, match="9 pairs of 8 items; lower"):
        drawn_sheets(pairs=9)
    with pytest.raises(StageInputError, match="both subjects are called x"):
        drawn_sheets(name_a="x", name_b="x")
    rows = [replace(row, image_id="gone") for row in lake.read_rows(Caption, captions_of(MINE))]
    images, given = drawn(benchmark=True).images, {"name_a": "a", "name_b": "b", "pairs": 2, "seed": 0}
    with pytest.raises(StageInputError, match="lacks 1 images of the captions, as gone"):
        sheets.fn(lake.publish(Caption, rows), captions_of(THEIRS), images, **given)
    with pytest.raises(StageInputError, match="7 in common"):
        sheets.fn(captions_of(MINE), lake.publish(Caption, rows[1:]), images, **given)
