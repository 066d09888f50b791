"""ViMaR: what is weak is really gone, what is strong is never touched, and the released code only appends."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.search.contract import Settings
from tasks.core.search.requests import ANSWER, Candidate, Force, Propose, Score, SplitSentences, Value
from tasks.core.search.vimar import vimar
from tests.support.number_world import World, number, numbers, proposed, run, script, value_of

STRONG = 0.5
VALUES = {"Weak one.": 0.1, "Weak two.": 0.2, "Good one.": 0.7, "Good two.": 0.8, "New one.": 0.9, "New two.": 0.6}


def world_of(answer: str, *steps: list[Candidate], ended: bool = True, **values: float) -> World:
    table = VALUES | {answer: 0.5} | values
    return World(script(proposed(answer, ended=ended), *steps), value=table.__getitem__, score=table.__getitem__)


def refine(world: World, **settings: Any) -> Any:
    return run(vimar, world, **{"refine_below": STRONG, "end_value": 0.0, **settings})


def test_a_weak_sentence_is_gone_and_a_better_one_stands_in_its_place() -> None:
    world = world_of("Good one. Weak one. Good two.", proposed("Weak two.", "New one.", "New two."))
    result = refine(world)
    assert result.sentences == ["Good one.", "New one.", "Good two."]
    assert "Weak" not in result.text
    assert result.stop_reason == "refined"


def test_a_weak_sentence_is_dropped_where_nothing_better_is_proposed() -> None:
    result = refine(world_of("Good one. Weak one. Good two.", proposed("Weak two.", "Good two.", "")))
    assert (result.sentences, result.stop_reason) == (["Good one.", "Good two."], "refined")


def test_new_sentences_are_proposed_before_the_weak_one() -> None:
    world = world_of("Good one. Weak one.", proposed("New one."))
    refine(world)
    request = world.of(Propose)[-1]
    assert (request.after.text, request.after.handle, request.until) == ("Good one.", 1, "sentence"), (
        "its own handle: no change yet"
    )
    assert not world.of(Force)
    world = world_of("Weak one. Good one.", proposed("New one."))
    refine(world)
    assert world.of(Propose)[-1].after is None


def test_after_a_change_the_real_text_is_read_before_anything_is_proposed() -> None:
    answer = "Good one. Weak one. Good two. Strong. Weak two. Last."
    world = world_of(answer, proposed("New one."), proposed("New two."), **{"Strong.": 0.9, "Last.": 0.9})
    result = refine(world)
    assert result.sentences == ["Good one.", "New one.", "Good two.", "Strong.", "New two.", "Last."]
    (forced,) = world.of(Force)
    assert (forced.after.text, forced.text) == ("New one.", "Good two. Strong."), (
        "once, and only what a proposal follows"
    )
    assert world.of(Propose)[-1].after.text == forced.text
    assert world.of(Value)[-1].items[0][0] == "Good one. New one. Good two. Strong."


def test_after_a_drop_proposals_follow_what_is_left() -> None:
    world = world_of("Good one. Weak one. Weak two.", proposed(""), proposed("New one."))
    assert refine(world).sentences == ["Good one.", "New one."]
    assert [request.after.text for request in world.of(Propose)[1:]] == ["Good one.", "Good one."]
    world = world_of("Weak one. Good one. Weak two.", proposed(""), proposed("New one."))
    assert refine(world).sentences == ["Good one.", "New one."]
    assert world.of(Force) == [Force(None, "Good one.")]


def test_an_answer_without_weak_sentences_is_left_alone() -> None:
    world = world_of("Good one. Good two.")
    result = refine(world)
    assert (result.text, result.stop_reason) == ("Good one. Good two.", "end")
    assert len(world.of(Propose)) == 1
    assert refine(world_of("Good one.", ended=False)).stop_reason == "length"


def test_an_answer_of_weak_sentences_keeps_the_best_it_can() -> None:
    result = refine(
        world_of("Weak one. Weak two.", proposed(""), proposed("Bad.", "Fair."), **{"Bad.": 0.0, "Fair.": 0.3})
    )
    assert result.sentences == ["Fair."]
    result = refine(world_of("Weak one. Weak two.", proposed(""), proposed("Bad."), **{"Bad.": 0.0}))
    assert result.sentences == ["Weak two."]


@given(slot=st.integers(0, 22), refine_below=st.floats(-1, 0), width=st.integers(1, 4), limit=st.integers(1, 8))
def test_strong_sentences_stay_in_order_and_weak_ones_go(
    slot: int, refine_below: float, width: int, limit: int
) -> None:
    world = World(numbers(slot))
    result = run(vimar, world, width=width, refine_below=refine_below, max_sentences=limit)
    winner = next(row.proposal.text for row in result.trace if row.chosen)
    originals = [f"Say {n}." for n in map(number, winner.split(". "))]
    strong = [text for text in originals if value_of(text) >= refine_below]
    unrefined = [text for text in result.sentences if text in strong]
    assert unrefined == strong[: len(unrefined)]
    if len(result.sentences) < limit:
        assert unrefined == strong
    if len(result.sentences) > 1:
        assert all(value_of(text) >= refine_below for text in result.sentences)
    assert 1 <= len(result.sentences) <= limit
    assert [row.proposal.text for row in result.trace if row.chosen and row.phase == "refine"] == result.sentences


def test_the_best_answer_by_the_mean_of_its_sentences_is_refined() -> None:
    answers = proposed("Good two. Weak one.", "New two.", "Good one. Good two.", "")
    world = World(script(answers), value=VALUES.__getitem__)
    result = refine(world)
    assert result.text == "Good one. Good two."
    first = [row for row in result.trace if row.phase == "answers"]
    assert [row.value for row in first] == [pytest.approx(0.45), 0.6, 0.75, None]
    assert world.requests[0] == Propose(None, (0.0, 0.1, 0.2), ANSWER, 1024, keep=True)
    assert len(world.of(Value)) == 1, "one request for all"


def test_as_many_whole_answers_are_drawn_as_set() -> None:
    world = world_of("Good one. Weak one.", proposed("New one."))
    result = refine(world, options={"answers": 1})
    assert world.requests[0].temperatures == (0.0,)
    assert len([row for row in result.trace if row.phase == "answers"]) == 1


def test_the_whole_paragraph_is_judged_where_set() -> None:
    table = VALUES | {"Good one. Good two.": 0.1, "New two.": 0.6}
    world = World(script(proposed("Good one. Good two.", "New two.")), value=table.__getitem__)
    result = refine(world, options={"paragraph": 1})
    assert result.text == "New two."
    assert len(world.of(SplitSentences)) == 1, "only the winner's sentences are judged for refinement"
    assert [row.value for row in result.trace if row.phase == "answers"] == [0.1, 0.6], "of the whole texts"
    world = World(script(proposed("Good one. Good two.", "New two.")), value=table.__getitem__)
    assert refine(world).text == "Good one. Good two.", "by the mean of the sentences"


def test_the_score_guides_where_set() -> None:
    world = world_of("Good one. Weak one.", proposed("New one."))
    result = refine(world, by="score")
    assert result.sentences == ["Good one.", "New one."]
    assert world.of(Score) and not world.of(Value)
    assert all(row.value is None for row in result.trace)


def test_what_it_needs() -> None:
    assert vimar.needs(Settings((0.0,))) == vimar.needs(Settings((0.0,), by="value")) == {"value", "weak"}
    assert vimar.needs(Settings((0.0,), by="score")) == {"scorer", "weak"}
    assert vimar.needs(Settings((0.0,), published=True)) == {"value"}
    adds = Settings((0.0,), options={"append": 1})
    assert vimar.needs(adds) == {"value", "weak", "end_value"}
    assert vimar.needs(replace(adds, end_value=0.1)) == {"value", "weak"}
    assert vimar.needs(replace(adds, by="score")) == {"scorer", "weak", "margin"}
    with pytest.raises(ValueError, match="want by score or value, not judge"):
        vimar.needs(Settings((0.0,), by="judge"))


def test_sentences_are_appended_while_they_are_strong() -> None:
    steps = proposed("New one."), proposed("Weak one.", "New two."), proposed("Weak two.", "new TWO!")
    result = refine(world_of("Good one.", *steps), options={"append": 5})
    assert (result.sentences, result.stop_reason) == (["Good one.", "New one.", "New two."], "refined")
    assert refine(world_of("Good one.", *steps), options={"append": 1}).sentences == ["Good one.", "New one."]
    assert refine(world_of("Good one.", *steps), options={"append": 5}, max_sentences=2).sentences == [
        "Good one.",
        "New one.",
    ]


def test_stage_two_replaces_what_is_weak_and_adds_what_was_overlooked() -> None:
    steps = proposed("Weak two.", "New one."), proposed("New two.", ""), proposed("")
    world = world_of("Good one. Weak one.", *steps)
    result = refine(world, options={"append": 3})
    assert result.sentences == ["Good one.", "New one.", "New two."]
    assert [row.phase for row in result.trace if row.chosen] == ["answers", "refine", "refine", "append"]
    assert [request.after.text for request in world.of(Propose)[1:]] == ["Good one.", "New one.", "New two."]
    assert result.trace[-1].phase == "append" and not result.trace[-1].chosen, "the end won the last step"


@pytest.mark.parametrize(
    ("refine_below", "end_value", "added"),
    [
        (-0.5, 0.0, True),  # V .1 is more than an ended answer's 0
        (-0.5, 0.05, True),
        (-0.5, 0.1, False),  # as much as the end is not more
        (-0.5, 0.3, False),
        (0.1, 0.0, True),  # what reaches the bound is not weak
        (0.2, 0.0, False),  # worth more than the end, but this search would replace it
    ],
)
def test_an_added_sentence_competes_with_the_end(refine_below: float, end_value: float, added: bool) -> None:
    world = world_of("Good one.", proposed("Weak one.", ""), proposed(""))
    settings = {"refine_below": refine_below, "end_value": end_value, "options": {"append": 2}}
    result = run(vimar, world, **settings)
    assert result.sentences == (["Good one.", "Weak one."] if added else ["Good one."])
    assert result.stop_reason == ("refined" if added else "end")


def test_a_sentence_of_negative_value_is_not_added_however_low_the_bound() -> None:
    world = world_of("Good one.", proposed("Bad."), **{"Bad.": -0.1})
    assert run(vimar, world, refine_below=-1.0, end_value=0.0, options={"append": 1}).sentences == ["Good one."]


def test_by_score_the_end_is_worth_the_margin() -> None:
    settings = {"by": "score", "refine_below": 0.15, "options": {"append": 1}}
    for margin, added in ((0.15, ["Weak two."]), (0.2, []), (0.3, [])):
        result = run(vimar, world_of("Good one.", proposed("Weak two.")), margin=margin, **settings)
        assert result.sentences == ["Good one.", *added]


def test_nothing_is_added_unless_set() -> None:
    world = world_of("Good one.", proposed("New one."))
    assert refine(world).sentences == ["Good one."]
    assert len(world.of(Propose)) == 1


def test_a_longer_answer_is_cut_at_the_limit() -> None:
    result = refine(world_of("Good one. Good two. New one."), max_sentences=2)
    assert (result.sentences, result.stop_reason) == (["Good one.", "Good two."], "max_sentences")


# As released


def test_released_nothing_is_removed() -> None:
    world = world_of("Weak one. Good one. Weak two.", proposed("Weak one.", "New one."), proposed("New one."))
    result = run(vimar, world, published=True, options={"threshold": STRONG})
    assert result.sentences == ["Weak one.", "Good one.", "Weak two.", "New one.", "New one."], (
        "appended, then compared"
    )
    assert result.stop_reason == "repeat"
    assert world.of(Propose)[1].after.text == "Weak one. Good one. Weak two.", "continues from the whole answer"
    assert {request.until for request in world.of(Propose)[1:]} == {"."}


def test_released_the_filtered_text_is_only_what_the_first_sentence_is_compared_with() -> None:
    world = world_of("Weak one. Good one.", proposed("Good one."))
    result = run(vimar, world, published=True, options={"threshold": STRONG})
    assert (result.text, result.stop_reason) == ("Weak one. Good one. Good one.", "repeat")


def test_released_the_paragraph_is_judged_as_one_text() -> None:
    table = VALUES | {"Good one. Good two.": 0.1, "Weak one.": 0.6}
    world = World(
        script(proposed("Good one. Good two.", "Weak one."), proposed("")), value=(table | {"": 0.0}).__getitem__
    )
    assert run(vimar, world, published=True).text == "Weak one."


def test_released_it_ends_at_the_limit() -> None:
    steps = [proposed(f"Say {n}.") for n in range(4)]
    world = World(script(proposed("Say 9."), *steps))
    result = run(vimar, world, published=True, max_sentences=3)
    assert (result.stop_reason, len(result.sentences)) == ("max_sentences", 4)
