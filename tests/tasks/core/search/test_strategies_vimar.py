"""ViMaR: what is weak is really gone, what is strong is never touched, and the released code only appends."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.search.contract import ANSWER, Candidate, Say, Score, Settings, Split, Value, Write
from tasks.core.search.vimar import vimar
from tests.support.number_world import World, number, numbers, run, said, script, value_of

STRONG = 0.5
VALUES = {"Weak one.": 0.1, "Weak two.": 0.2, "Good one.": 0.7, "Good two.": 0.8, "New one.": 0.9, "New two.": 0.6}


def world(answer: str, *steps: list[Candidate], ended: bool = True, **values: float) -> World:
    table = VALUES | {answer: 0.5} | values
    return World(script(said(answer, ended=ended), *steps), value=table.__getitem__, score=table.__getitem__)


def refine(one: World, **settings: Any) -> Any:
    return run(vimar, one, **{"weak_below": STRONG, **settings})


def test_a_weak_sentence_is_gone_and_a_better_one_stands_in_its_place() -> None:
    one = world("Good one. Weak one. Good two.", said("Weak two.", "New one.", "New two."))
    found = refine(one)
    assert found.sentences == ["Good one.", "New one.", "Good two."]
    assert "Weak" not in found.text
    assert found.stop_reason == "refined"


def test_a_weak_sentence_is_dropped_where_nothing_better_is_proposed() -> None:
    found = refine(world("Good one. Weak one. Good two.", said("Weak two.", "Good two.", "")))
    assert (found.sentences, found.stop_reason) == (["Good one.", "Good two."], "refined")


def test_new_sentences_are_proposed_at_the_place_before_the_weak_one() -> None:
    one = world("Good one. Weak one.", said("New one."))
    refine(one)
    asked = one.of(Say)[-1]
    assert (asked.after.text, asked.after.place, asked.until) == ("Good one.", 1, "sentence"), (
        "its own place: no change yet"
    )
    assert not one.of(Write)
    one = world("Weak one. Good one.", said("New one."))
    refine(one)
    assert one.of(Say)[-1].after is None


def test_after_a_change_the_real_text_is_read_before_anything_is_proposed() -> None:
    answer = "Good one. Weak one. Good two. Strong. Weak two. Last."
    one = world(answer, said("New one."), said("New two."), **{"Strong.": 0.9, "Last.": 0.9})
    found = refine(one)
    assert found.sentences == ["Good one.", "New one.", "Good two.", "Strong.", "New two.", "Last."]
    (written,) = one.of(Write)
    assert (written.after.text, written.text) == ("New one.", "Good two. Strong."), (
        "once, and only what a proposal follows"
    )
    assert one.of(Say)[-1].after.text == written.text
    assert one.of(Value)[-1].items[0][0] == "Good one. New one. Good two. Strong."


def test_after_a_drop_proposals_follow_what_is_left() -> None:
    one = world("Good one. Weak one. Weak two.", said(""), said("New one."))
    assert refine(one).sentences == ["Good one.", "New one."]
    assert [request.after.text for request in one.of(Say)[1:]] == ["Good one.", "Good one."]
    one = world("Weak one. Good one. Weak two.", said(""), said("New one."))
    assert refine(one).sentences == ["Good one.", "New one."]
    assert one.of(Write) == [Write(None, "Good one.")]


def test_an_answer_without_weak_sentences_is_left_alone() -> None:
    one = world("Good one. Good two.")
    found = refine(one)
    assert (found.text, found.stop_reason) == ("Good one. Good two.", "end")
    assert len(one.of(Say)) == 1
    assert refine(world("Good one.", ended=False)).stop_reason == "length"


def test_an_answer_of_weak_sentences_keeps_the_best_it_can() -> None:
    found = refine(world("Weak one. Weak two.", said(""), said("Bad.", "Fair."), **{"Bad.": 0.0, "Fair.": 0.3}))
    assert found.sentences == ["Fair."]
    found = refine(world("Weak one. Weak two.", said(""), said("Bad."), **{"Bad.": 0.0}))
    assert found.sentences == ["Weak two."]


@given(slot=st.integers(0, 22), weak_below=st.floats(-1, 0), width=st.integers(1, 4), limit=st.integers(1, 8))
def test_strong_sentences_stay_in_order_and_weak_ones_go(slot: int, weak_below: float, width: int, limit: int) -> None:
    one = World(numbers(slot))
    found = run(vimar, one, width=width, weak_below=weak_below, max_sentences=limit)
    winner = next(row.proposal.text for row in found.trace if row.chosen)
    originals = [f"Say {n}." for n in map(number, winner.split(". "))]
    strong = [text for text in originals if value_of(text) >= weak_below]
    kept = [text for text in found.sentences if text in strong]
    assert kept == strong[: len(kept)]
    if len(found.sentences) < limit:
        assert kept == strong
    if len(found.sentences) > 1:
        assert all(value_of(text) >= weak_below for text in found.sentences)
    assert 1 <= len(found.sentences) <= limit
    assert [row.proposal.text for row in found.trace if row.chosen and row.phase == "refine"] == found.sentences


def test_the_best_answer_by_the_mean_of_its_sentences_is_refined() -> None:
    answers = said("Good two. Weak one.", "New two.", "Good one. Good two.", "")
    one = World(script(answers), value=VALUES.__getitem__)
    found = refine(one)
    assert found.text == "Good one. Good two."
    first = [row for row in found.trace if row.phase == "answers"]
    assert [row.value for row in first] == [pytest.approx(0.45), 0.6, 0.75, None]
    assert one.asked[0] == Say(None, (0.0, 0.1, 0.2), ANSWER, 1024, keep=True)
    assert len(one.of(Value)) == 1, "one request for all"


def test_as_many_whole_answers_are_drawn_as_asked() -> None:
    one = world("Good one. Weak one.", said("New one."))
    found = refine(one, options={"answers": 1})
    assert one.asked[0].temperatures == (0.0,)
    assert len([row for row in found.trace if row.phase == "answers"]) == 1


def test_the_whole_paragraph_is_judged_where_asked() -> None:
    table = VALUES | {"Good one. Good two.": 0.1, "New two.": 0.6}
    one = World(script(said("Good one. Good two.", "New two.")), value=table.__getitem__)
    assert refine(one, options={"paragraph": 1}).text == "New two."
    assert len(one.of(Split)) == 1


def test_the_score_guides_where_asked() -> None:
    one = world("Good one. Weak one.", said("New one."))
    found = refine(one, by="score")
    assert found.sentences == ["Good one.", "New one."]
    assert one.of(Score) and not one.of(Value)
    assert all(row.value is None for row in found.trace)


def test_what_it_needs() -> None:
    assert vimar.needs(Settings((0.0,))) == vimar.needs(Settings((0.0,), by="value")) == {"value", "weak"}
    assert vimar.needs(Settings((0.0,), by="score")) == {"scorer", "weak"}
    assert vimar.needs(Settings((0.0,), published=True)) == {"value"}
    with pytest.raises(ValueError, match="want by score or value, not judge"):
        vimar.needs(Settings((0.0,), by="judge"))


def test_sentences_are_appended_while_they_are_strong() -> None:
    steps = said("New one."), said("Weak one.", "New two."), said("Weak two.", "new TWO!")
    found = refine(world("Good one.", *steps), options={"append": 5})
    assert (found.sentences, found.stop_reason) == (["Good one.", "New one.", "New two."], "refined")
    assert refine(world("Good one.", *steps), options={"append": 1}).sentences == ["Good one.", "New one."]
    assert refine(world("Good one.", *steps), options={"append": 5}, max_sentences=2).sentences == [
        "Good one.",
        "New one.",
    ]


def test_a_longer_answer_is_cut_at_the_limit() -> None:
    found = refine(world("Good one. Good two. New one."), max_sentences=2)
    assert (found.sentences, found.stop_reason) == (["Good one.", "Good two."], "max_sentences")


# As released


def test_released_nothing_is_removed() -> None:
    one = world("Weak one. Good one. Weak two.", said("Weak one.", "New one."), said("New one."))
    found = run(vimar, one, published=True, options={"threshold": STRONG})
    assert found.sentences == ["Weak one.", "Good one.", "Weak two.", "New one."]
    assert found.stop_reason == "repeat"
    assert one.of(Say)[1].after.text == "Weak one. Good one. Weak two.", "goes on from the whole answer"
    assert {request.until for request in one.of(Say)[1:]} == {"."}


def test_released_the_filtered_text_is_only_what_the_first_sentence_is_compared_with() -> None:
    one = world("Weak one. Good one.", said("Good one."))
    found = run(vimar, one, published=True, options={"threshold": STRONG})
    assert (found.text, found.stop_reason) == ("Weak one. Good one.", "repeat")


def test_released_the_paragraph_is_judged_as_one_text() -> None:
    table = VALUES | {"Good one. Good two.": 0.1, "Weak one.": 0.6}
    one = World(script(said("Good one. Good two.", "Weak one."), said("")), value=(table | {"": 0.0}).__getitem__)
    assert run(vimar, one, published=True).text == "Weak one."


def test_released_it_ends_at_the_limit() -> None:
    steps = [said(f"Say {n}.") for n in range(4)]
    one = World(script(said("Say 9."), *steps))
    found = run(vimar, one, published=True, max_sentences=3)
    assert (found.stop_reason, len(found.sentences)) == ("max_sentences", 4)
