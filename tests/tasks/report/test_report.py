"""The report of an invented run: complete, self-contained, safe, and true to its tables."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tasks.report.marked_text import marked_html
from tasks.report.rounds import round_rows
from tasks.report.run_figures import Line, Panel, reward_figure, rounds_figure, value_figure
from tasks.report.run_report import round_summary_markdown, run_rows, write_report
from tasks.report.views import health_checks, margin_of, thumbnail
from tests.support.made_run import SCRIPT, make_run


@pytest.fixture(scope="module")
def run_id(tmp_path_factory: pytest.TempPathFactory) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VISLOOP_HOME", str(tmp_path_factory.mktemp("store")))
        yield make_run()


@pytest.fixture(scope="module")
def page(run_id: str) -> str:
    path = write_report(run_id)
    assert path.name == "report.html" and path.parent.name == run_id
    return path.read_text(encoding="utf-8")


def test_the_page_needs_nothing_but_itself(page: str) -> None:
    assert re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', page) == []
    assert re.findall(r"url\((?!#)[^)]*\)|@import", page) == []


def test_text_of_a_model_or_a_file_is_never_markup(page: str) -> None:
    assert SCRIPT not in page
    assert "&lt;script&gt;document.title" in page
    assert "<script" not in page


def test_every_row_of_the_table_of_rounds_is_there_with_its_intervals_and_decisions(page: str) -> None:
    for text in ("base, greedy", "base + search (visvm)", "round 1, greedy", "54.0 to 66.0", "promoted", "rejected",
                 "round-1 against base: chair_i -0.160"):  # fmt: skip
        assert text in page


def test_the_grid_shows_a_dozen_images_with_every_caption(page: str) -> None:
    assert page.count('class="card item"') == 12
    assert page.count("data:image/jpeg;base64,") == 12
    assert page.count('<section class="caption">') == 12 * 4
    assert 'class="false"' in page and 'class="true"' in page


def test_rewards_values_health_stages_and_quarantine_are_shown(page: str) -> None:
    assert "below the margin τ = 0.2" in page
    assert "Spearman 0.8" in page
    assert "scorer separates true from hallucinated" in page
    assert "1 of 2" in page and "vision encodes" in page
    assert "unreadable" in page and "broken-0.jpg" in page


def test_the_profile_is_there_in_full(page: str) -> None:
    assert "&#34;max_sentence_tokens&#34;" in page


def test_writing_it_again_gives_the_same_page(run_id: str, page: str) -> None:
    assert write_report(run_id).read_text(encoding="utf-8") == page


def test_a_run_that_failed_before_anything_still_has_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.profiles.loading import load_profile
    from storage import runs

    monkeypatch.setenv("VISLOOP_HOME", str(tmp_path))
    failed = runs.start_run("demo", load_profile("demo").model_dump_json())
    runs.finish_run(failed, "failed", message="no images")
    page = write_report(failed).read_text(encoding="utf-8")
    assert "it failed before the benchmark" in page and "no images" in page


def test_the_markdown_of_a_round_has_the_table_and_the_plot(run_id: str) -> None:
    text = round_summary_markdown(run_id, 1)
    assert "| round 1, greedy | 28.0 [22.0, 34.0]" in text
    assert "![rounds](data:image/png;base64," in text
    assert len(text) < 150_000  # it is stored in Prefect's database


def test_rows_come_base_first_and_greedy_before_search(run_id: str) -> None:
    assert [row.label for row in run_rows(run_id)] == [
        "base, greedy", "base + search (visvm)", "round 1, greedy", "round 2, greedy"]  # fmt: skip


def test_round_ten_comes_after_round_two() -> None:
    metric = {
        "decoding": "greedy",
        "benchmark": "chair",
        "metric": "recall",
        "value": 0.5,
        "ci_low": 0.4,
        "ci_high": 0.6,
        "n": 9,
    }
    rows = round_rows([{**metric, "subject": f"round-{n}"} for n in (10, 2)], [], [])
    assert [row.subject for row in rows] == ["round-2", "round-10"]


MARKED = 'a &lt;b&gt; <mark class="true" title="dog: in the image">dog</mark> &amp; cat'


@pytest.mark.parametrize(
    ("mentions", "wanted"),
    [
        ([], "a &lt;b&gt; dog &amp; cat"),
        ([("dog", 6, 9, False)], MARKED),
        ([("dog", 6, 9, False), ("og", 7, 9, True)], MARKED),
        ([("far", 90, 93, True)], "a &lt;b&gt; dog &amp; cat"),
    ],
)  # fmt: skip
def test_mentions_are_marked_and_all_else_is_escaped(mentions: list[tuple[str, int, int, bool]], wanted: str) -> None:
    given = [{"text": o, "object": o, "start": s, "end": e, "hallucinated": h} for o, s, e, h in mentions]
    assert marked_html("a <b> dog & cat", given) == wanted


def test_figures_are_the_same_bytes_each_time_and_take_the_pages_colours() -> None:
    line = Line("greedy", [0, 1], [0.3, 0.1], [0.2, 0.05], [0.4, 0.15])
    first, again = (rounds_figure([Panel("CHAIRi", ["base", "round 1"], [line])]) for _ in range(2))
    assert first == again and first.startswith(b"<svg") and b"currentColor" in first
    assert value_figure([0.1, 0.2], [0.1, 0.3], 1.0, "png").startswith(b"\x89PNG")
    assert b"no such" not in reward_figure([], None)


def test_a_failed_check_is_shown_with_its_bound() -> None:
    measured = [
        {"benchmark": "health", "subject": "base", "decoding": "rollouts", "metric": "scorer_auc", "value": 0.55}
    ]
    (check,) = health_checks(measured, {"min_scorer_auc": 0.6})
    assert not check.passed and "0.550, wanted at least 0.6" in check.text


def test_the_margin_lies_between_what_was_penalized_and_other_scores() -> None:
    rows = [{"score": 0.1, "shaped": -0.1}, {"score": 0.3, "shaped": 0.3}, {"score": None, "shaped": None}]
    assert margin_of(rows) == pytest.approx(0.2)
    assert margin_of(rows[1:]) is None


def test_a_picture_that_cannot_be_read_is_left_empty() -> None:
    assert thumbnail(b"no picture") == thumbnail(None) == ""
