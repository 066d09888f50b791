"""The table of VisVM's and ViMaR's work counts what the searches really did."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial

import pytest
import torch

from benchmarks.search_cases import demo_case
from benchmarks.search_shapes import Case, counted, shaped
from benchmarks.vimar_page import CODE, COLUMNS, ENGINE, RELEASED, SAME_LOOPS, page, ratios, where_from
from benchmarks.vimar_work import check_same, counts_of, sequential_steps, ways
from tasks.core.engine.scheduler import Job
from tasks.core.models.value import ValueModel
from tasks.core.search.contract import Strategy, Task
from tasks.core.search.requests import Candidate
from tasks.core.search.vimar import vimar
from tasks.core.search.visvm import visvm
from tests.support.number_world import World, run, script

VALUES = {"One. Two.": 0.0, "One.": 0.9, "Two.": 0.1, "Three.": 0.8, "Four.": 0.7, "": 0.0}


def drawn(*texts: tuple[str, int], ended: bool = False) -> list[Candidate]:
    return [Candidate(text, 0.0, ended or not text, count, handle=1) for text, count in texts]


def test_sequential_steps_are_those_of_the_longest_candidate_of_each_step() -> None:
    steps = drawn(("One.", 4), ("Two.", 7), ("Three.", 5)), drawn(("Four.", 2), ("", 1), ("One.", 9)), drawn(("", 1))
    world = World(script(*steps), value=VALUES.__getitem__)
    result = run(visvm, world, end="policy")
    assert [row.proposal.drawn for row in result.trace] == [4, 7, 5, 2, 1, 9, 1]
    assert sequential_steps(result) == 7 + 9 + 1


def test_vimar_draws_its_answers_side_by_side_and_then_only_where_a_sentence_is_weak() -> None:
    answers = drawn(("One. Two.", 8), ("", 1), ended=True)
    world = World(
        script(answers, drawn(("Three.", 3), ("Two.", 6)), drawn(("", 1), ("Four.", 5))), value=VALUES.__getitem__
    )
    result = run(vimar, world, refine_below=0.5, options={"append": 1})
    assert result.sentences == ["One.", "Three.", "Four."]
    assert sequential_steps(result) == 8 + 0 + 6 + 5, "a sentence that stays is not drawn again"
    assert counts_of([result], Counter(), Counter())["decoded"] == 8 + 1 + 3 + 6 + 1 + 5


@pytest.fixture(scope="module")
def case() -> Case:
    torch.set_num_threads(1)
    case = demo_case(1, candidates=3)
    return replace(case, settings=replace(case.settings, refine_below=float("inf"), max_sentences=4, published=True))


@pytest.mark.parametrize("strategy", [visvm, vimar])
def test_forwards_are_the_sequential_steps_where_candidates_share_them_and_all_tokens_where_they_do_not(
    case: Case, strategy: Strategy
) -> None:
    assert isinstance(case.value, ValueModel)
    counts = {}
    for shape in ("engine_1", "released"):
        with counted([case.policy, case.value.policy]) as fed:
            scheduler = shaped(shape, case)
            search = strategy.search(Task(case.prompt, case.settings))
            image = partial(lambda image: image, case.images[0])
            results = [result for _, result in scheduler.run([Job(0, image, case.prompt, search, ("work",))])]
        counts[shape] = counts_of(results, fed, scheduler.decoder.counters)
        if shape == "engine_1":
            assert counts[shape]["decoded"] == scheduler.decoder.counters["decode_tokens"]
    engine, released = counts["engine_1"], counts["released"]
    assert engine["forwards"] == engine["sequential"] + 1, "the prompt is read once"
    assert released["forwards"] == released["decoded"] == engine["decoded"], "a call's first forward reads and draws"
    assert released["sequential"] == engine["sequential"] < engine["decoded"]
    assert released["prefill"] > 3 * engine["prefill"] and released["value_tokens"] > engine["value_tokens"]
    calls = released["forwards"] - fed["decode_tokens"]  # of `generate`; its further forwards draw a token each
    assert released["images"] == calls + released["value_forwards"] > 3 * engine["images"] >= 6


def test_other_captions_from_the_released_shape_are_refused() -> None:
    rows = [{"kind": kind, "spec": "visvm", "texts": text} for kind, text in ((RELEASED, "a"), (SAME_LOOPS, "b"))]
    with pytest.raises(RuntimeError, match="not the same search"):
        check_same(rows)
    check_same([{**row, "texts": "a"} for row in rows])


def test_the_table_compares_at_equal_candidates_and_by_value_on_both_sides() -> None:
    rows = ways()
    for kind in {way.kind for way in rows}:
        counts = {
            method: {way.candidates for way in rows if (way.kind, way.method) == (kind, method)}
            for method in ("VisVM", "ViMaR")
        }
        assert counts["VisVM"] == counts["ViMaR"] >= {6, 30}
    assert not any("by=" in way.spec or "filter" in way.spec for way in rows)


# Seconds a caption by (kind, method, candidates); every column of work is ten times as many.
SECONDS = {
    (RELEASED, "VisVM", 30): 24.0,
    (RELEASED, "ViMaR", CODE): 3.0,
    (RELEASED, "ViMaR", 30): 6.0,
    (SAME_LOOPS, "VisVM", 30): 3.0,
    (SAME_LOOPS, "ViMaR", 30): 2.0,
    (ENGINE, "VisVM", 30): 1.0,
    (ENGINE, "ViMaR", 30): 0.8,
}


def rows_of(seconds: dict[tuple[str, str, int], float]) -> list[dict[str, object]]:
    chair = {"chair_i": [0.1, 0.0, 0.2], "recall": [0.9, 0.8, 1.0]}
    return [
        {"kind": kind, "method": method, "candidates": k, "work": dict.fromkeys(COLUMNS, 10 * s), "seconds": s, **chair}
        for (kind, method, k), s in seconds.items()
    ]


def test_the_factor_is_split_into_candidates_shape_loops_and_what_is_left() -> None:
    rows = rows_of(SECONDS | {(ENGINE, "VisVM", 6): 0.5, (ENGINE, "ViMaR", 6): 1.0})
    text = where_from(rows)
    # 24 / 3 = 8 = 2 (24 / 6 = 4) x 2.67 (3 / 2 = 1.5) x 1.2 (1 / .8 = 1.25) x 1.25
    assert "the factor is 8.0 here" in text
    assert "unequal candidates 2.00, the call shape 2.67, the released loops 1.20, and 1.25 that is left" in text
    assert "(0.50 with 6)" in text
    assert ratios(rows, RELEASED, 30, CODE)["decoded"] == 8.0


def test_the_page_has_every_row() -> None:
    seconds = {(way.kind, way.method, way.candidates): 1.0 for way in ways()}
    text = page({"rows": rows_of(seconds), "scenes": 60, "measured_scenes": 12})
    assert text.count("| 1000 | 10.0 | 90.0 |") == len(ways())
    assert "30 and 12" in text
