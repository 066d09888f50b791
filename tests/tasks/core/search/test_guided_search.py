"""Sentence-level searches over arithmetic: what is chosen, what is requested, what is recorded."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.search.clip_prm import clip_prm
from tasks.core.search.contract import SearchResult, Settings
from tasks.core.search.ranking import fresh
from tasks.core.search.requests import Candidate, Propose, Score, Value
from tasks.core.search.visvm import visvm
from tests.support.number_world import (
    World,
    by,
    number,
    numbers,
    numbers_and_ends,
    proposed,
    run,
    script,
    sentences_of,
)


def by_score(*steps: list[Candidate], scores: Any, **settings: Any) -> SearchResult:
    return run(clip_prm, World(script(*steps), score=scores), **settings)


def same(text: str) -> float:
    return 0.5


# What is chosen


def test_search_follows_the_value_not_the_policy_and_not_the_score() -> None:
    result = run(visvm, World(numbers()), max_sentences=4)
    for step in range(len(result.sentences)):
        rows = [row for row in result.trace if row.step == step and row.value is not None]
        (chosen,) = [row for row in rows if row.chosen]
        assert chosen.value == max(row.value for row in rows)
    assert any(row.chosen and row.candidate != 0 for row in result.trace)
    scored = run(clip_prm, World(numbers()), max_sentences=4)
    assert scored.sentences != result.sentences
    assert [number(text) for text in scored.sentences] == [
        min(number(row.proposal.text) for row in scored.trace if row.step == step and row.score is not None)
        for step in range(4)
    ]


def test_the_next_step_continues_from_the_chosen_sentence() -> None:
    world = World(numbers())
    result = run(visvm, world, max_sentences=4)
    assert sentences_of(world.of(Propose)) == [None, *result.sentences[:-1]]


def test_the_value_model_gets_the_text_before_a_candidate() -> None:
    world = World(script(proposed("A."), proposed("B."), proposed("C.")), value=same, score=same)
    run(visvm, world, max_sentences=3)
    assert [request.items[0][0] for request in world.of(Value)] == ["", "A.", "A. B."]


def test_on_equal_terms_greedy_wins() -> None:
    assert by_score(proposed("A.", "B.", "C."), scores=same, max_sentences=1).text == "A."


def test_a_repeated_sentence_is_no_candidate() -> None:
    result = by_score(
        proposed("A dog."), proposed("a DOG!", "A cat."), scores=by({"A dog.": 1, "A cat.": -1}), max_sentences=2
    )
    assert result.sentences == ["A dog.", "A cat."]
    repeat = result.trace[1]
    assert (repeat.proposal.text, repeat.score, repeat.chosen) == ("a DOG!", None, False)


def test_an_unscored_sentence_is_the_last_choice() -> None:
    scores = by({"What?": None, "A dog.": -0.9})
    assert by_score(proposed("What?", "A dog."), scores=scores, max_sentences=1).text == "A dog."
    assert by_score(proposed("What?"), scores=scores, max_sentences=1).text == "What?"


def test_fresh_drops_empty_repeated_and_double_candidates() -> None:
    assert fresh(proposed("", "A.", "a", "B!", "...", "C."), ["b"]) == [1, 5]


def test_a_trace_holds_no_handle_of_the_engine() -> None:
    assert all(row.proposal.handle is None for row in run(visvm, World(numbers()), max_sentences=4).trace)


# Filtered by the margin, and with the greedy candidate


def test_the_value_chooses_among_those_that_reach_the_margin_only() -> None:
    world = World(
        script(proposed("Low.", "High.")), by({"Low.": 0.1, "High.": 0.9}), by({"Low.": 1.0, "High.": 0.0})
    )  # fmt: skip
    assert run(visvm, world, filter="margin", margin=0.4, max_sentences=1).text == "High."


def test_without_the_filter_the_margin_removes_nothing() -> None:
    world = World(script(proposed("Low.", "High.")), value=by({"Low.": 1.0, "High.": 0.0}))
    assert run(visvm, world, margin=0.4, max_sentences=1).text == "Low."


def test_greedy_takes_the_first_new_candidate_whatever_its_guide() -> None:
    steps = proposed("A.", "B."), proposed("A.", "C.", "D.")
    scores = by({"A.": 0.1, "B.": 0.9, "C.": 0.2, "D.": 0.8})
    result = by_score(*steps, scores=scores, choose="greedy", max_sentences=2)
    assert result.sentences == ["A.", "C."]
    assert [row.score for row in result.trace if row.chosen] == [0.1, 0.2]
    assert by_score(*steps, scores=scores, max_sentences=2).sentences == ["B.", "D."]


def test_greedy_under_the_filter_is_the_first_that_reaches_the_margin() -> None:
    scores = by({"A.": 0.1, "B.": 0.5, "C.": 0.9})
    result = by_score(
        proposed("A.", "B.", "C."), scores=scores, choose="greedy", filter="margin", margin=0.4, max_sentences=1
    )
    assert result.text == "B."


@pytest.mark.parametrize("name", ["end", "filter", "choose"])
def test_an_unknown_value_names_the_known_ones(name: str) -> None:
    known = {"end": "action, policy, vote, guide", "filter": "none, margin", "choose": "best, greedy"}
    with pytest.raises(ValueError, match=f"{name} is 'never': want one of {known[name]}"):
        by_score(scores=same, **{name: "never"})


# Which requests are made


@pytest.mark.parametrize("end", ["action", "policy", "vote", "guide"])
def test_visvm_requests_scores_only_where_they_filter(end: str) -> None:
    world = World(numbers())
    run(visvm, world, end=end, end_value=0.0, max_sentences=4)
    assert not world.of(Score)
    run(visvm, world, end=end, filter="margin", end_value=0.0, max_sentences=2)
    assert [request.texts for request in world.of(Score)] == [
        tuple(candidate.text for _, candidate in request.items) for request in world.of(Value)[-2:]
    ]


def test_clip_prm_requests_scores_only() -> None:
    world = World(numbers())
    run(clip_prm, world, max_sentences=2)
    assert world.of(Score) and not world.of(Value)


@pytest.mark.parametrize(
    ("settings", "of_visvm", "of_clip_prm"),
    [
        ({}, {"value", "end_value"}, {"scorer", "margin"}),
        ({"end": "guide"}, {"value", "end_value"}, {"scorer", "margin"}),
        ({"end_value": 0.0}, {"value"}, {"scorer"}),
        ({"end": "policy"}, {"value"}, {"scorer"}),
        ({"end": "vote"}, {"value"}, {"scorer"}),
        ({"end": "policy", "filter": "margin"}, {"value", "scorer", "margin"}, {"scorer", "margin"}),
        ({"filter": "margin"}, {"value", "end_value", "scorer", "margin"}, {"scorer", "margin"}),
        ({"published": True, "filter": "margin"}, {"value"}, {"scorer"}),
    ],
)
def test_needs_follow_the_settings(settings: dict[str, Any], of_visvm: set[str], of_clip_prm: set[str]) -> None:
    assert visvm.needs(Settings((0.0,), **settings)) == of_visvm
    assert clip_prm.needs(Settings((0.0,), **settings)) == of_clip_prm


# With gamma 0 a value is the sentence's own reward


@given(
    slot=st.integers(0, 22),
    width=st.integers(1, 5),
    end=st.sampled_from(["action", "policy", "vote", "guide"]),
    filter_by=st.sampled_from(["none", "margin"]),
    choose=st.sampled_from(["best", "greedy"]),
    end_value=st.none() | st.floats(-1, 1),
    margin=st.floats(-1, 1),
    redundancy=st.floats(0, 1),
    limit=st.integers(1, 8),
)
def test_a_value_that_is_the_score_chooses_as_the_score_does(
    slot: int, width: int, end: str, filter_by: str, choose: str, end_value: float | None, margin: float,
    redundancy: float, limit: int,
) -> None:  # fmt: skip
    settings = {
        "width": width, "end": end, "filter": filter_by, "choose": choose, "end_value": end_value, "margin": margin,
        "redundancy": redundancy, "max_sentences": limit,
    }  # fmt: skip

    def judge(text: str) -> float:
        return 1 - number(text) / 10

    scored = run(clip_prm, World(numbers_and_ends(slot), score=judge), **settings)
    valued = run(visvm, World(numbers_and_ends(slot), score=judge, value=judge), **settings)
    assert (valued.sentences, valued.stop_reason) == (scored.sentences, scored.stop_reason)
    assert [row.chosen for row in valued.trace] == [row.chosen for row in scored.trace]
