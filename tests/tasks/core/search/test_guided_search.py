"""Sentence-level searches over arithmetic: what is chosen, when it stops, what is recorded."""

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
from tests.support.number_world import World, by, ending, number, numbers, proposed, run, script, sentences_of


def by_score(*steps: list[Candidate], scores: Any, **settings: Any) -> SearchResult:
    return run(clip_prm, World(script(*steps), score=scores), **settings)


def by_value(*steps: list[Candidate], values: Any, **settings: Any) -> SearchResult:
    return run(visvm, World(script(*steps), value=values, score=lambda text: 0.0), **settings)


def same(text: str) -> float:
    return 0.5


# What is chosen


def test_search_follows_the_value_not_the_policy_and_not_the_score() -> None:
    result = run(visvm, World(numbers()), max_sentences=4)
    for step in range(len(result.sentences)):
        rows = [row for row in result.trace if row.step == step and row.score is not None]
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


# When it stops


def test_reward_stops_when_no_candidate_reaches_the_margin() -> None:
    scores = by({"A.": 0.9, "B.": 0.2, "C.": 0.5, "D.": 0.39, "E.": 0.1})
    result = by_score(
        proposed("A."), proposed("B.", "C."), proposed("D.", "E."), scores=scores, margin=0.4, max_sentences=9
    )
    assert (result.text, result.stop_reason) == ("A. C.", "reward")
    assert [row.stop for row in result.trace] == [None] * 4 + ["reward"]


def test_the_first_sentence_is_exempt_from_the_margin() -> None:
    scores = by({"A.": 0.1, "B.": 0.2, "C.": 0.3})
    result = by_score(proposed("A.", "B."), proposed("C."), scores=scores, margin=0.4)
    assert (result.text, result.stop_reason) == ("B.", "reward")


def test_the_value_chooses_among_those_that_reach_the_margin_only() -> None:
    world = World(
        script(proposed("Low.", "High.")), by({"Low.": 0.1, "High.": 0.9}), by({"Low.": 1.0, "High.": 0.0})
    )  # fmt: skip
    assert run(visvm, world, margin=0.4, max_sentences=1).text == "High."


@pytest.mark.parametrize(
    ("candidates", "text", "reason"),
    [
        (ending("B.", "", ""), "A.", "vote"),
        (ending("B.", "C.", "", ""), "A.", "vote"),
        (ending("B.", "C.", ""), "A. C.", "max_sentences"),
    ],
)
def test_vote_stops_when_half_of_the_candidates_end(candidates: list[Candidate], text: str, reason: str) -> None:
    scores = by({"A.": 0.0, "B.": 0.1, "C.": 0.2})
    result = by_score(proposed("A."), candidates, scores=scores, stop="vote", max_sentences=2)
    assert (result.text, result.stop_reason) == (text, reason)


def test_the_vote_ignores_the_margin_and_spares_the_first_sentence() -> None:
    result = by_score(ending("", "", "A."), scores=by({"A.": -1}), stop="vote", margin=0.9, max_sentences=1)
    assert result.text == "A."


@pytest.mark.parametrize("stop", ["reward", "vote", "chosen", "value"])
def test_a_chosen_sentence_that_ends_the_answer_is_the_last(stop: str) -> None:
    candidates = [Candidate("A.", 0, True, 1), Candidate("B.", 0, False, 1)]
    result = by_score(candidates, scores=by({"A.": 0.9, "B.": 0.1}), stop=stop)
    assert (result.text, result.stop_reason) == ("A.", "end")


def test_chosen_goes_on_while_others_end() -> None:
    result = by_score(proposed("A."), ending("B.", "", ""), proposed("C."), scores=same, stop="chosen", max_sentences=3)
    assert (result.text, result.stop_reason) == ("A. B. C.", "max_sentences")


def test_value_stops_when_no_candidate_is_worth_more_than_stopping() -> None:
    values = by({"A.": -0.5, "B.": 0.0, "C.": -0.1, "D.": -0.2})
    result = by_value(proposed("A."), proposed("B."), proposed("C.", "D."), values=values, stop="value")
    assert (result.text, result.stop_reason) == ("A. B.", "value")


def test_the_redundancy_counts_in_what_is_compared_with_stopping() -> None:
    steps, values = (proposed("A red dog."), proposed("A red cat.")), by({"A red dog.": 0.5, "A red cat.": 0.1})
    ran = by_value(*steps, values=values, stop="value", max_sentences=2)
    assert (ran.text, ran.stop_reason) == ("A red dog. A red cat.", "max_sentences")
    assert by_value(*steps, values=values, stop="value", redundancy=0.5).stop_reason == "value"


def test_no_new_sentence_is_a_repeat_and_an_empty_one_an_end() -> None:
    result = by_score(proposed("A."), proposed("A.", "a"), scores=same)
    assert (result.text, result.stop_reason) == ("A.", "repeat")
    result = by_score(proposed("A."), ending("", "A."), scores=same)
    assert (result.text, result.stop_reason) == ("A.", "end")


def test_an_unknown_rule_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'never': want one of reward, vote, chosen, value"):
        by_score(scores=same, stop="never")


# Which requests are made


@pytest.mark.parametrize("stop", ["vote", "chosen", "value"])
def test_visvm_requests_no_score_where_none_stops_it(stop: str) -> None:
    world = World(numbers())
    run(visvm, world, stop=stop, max_sentences=4)
    assert not world.of(Score)
    assert visvm.needs(Settings((0.0,), stop=stop)) == {"value"}


def test_visvm_requests_both_where_the_reward_stops_it_and_clip_prm_scores_only() -> None:
    world = World(numbers())
    run(visvm, world, max_sentences=2)
    texts, items = [len(r.texts) for r in world.of(Score)], [len(r.items) for r in world.of(Value)]
    assert texts == items != []
    assert visvm.needs(Settings((0.0,))) == {"value", "scorer", "margin"}
    world = World(numbers())
    run(clip_prm, world, max_sentences=2)
    assert world.of(Score) and not world.of(Value)
    assert clip_prm.needs(Settings((0.0,))) == {"scorer", "margin"}
    assert clip_prm.needs(Settings((0.0,), stop="chosen")) == {"scorer"}


# With gamma 0 a value is the sentence's own reward


@given(
    slot=st.integers(0, 22),
    width=st.integers(1, 5),
    stop=st.sampled_from(["reward", "vote", "chosen", "value"]),
    margin=st.floats(-1, 1),
    redundancy=st.floats(0, 1),
    limit=st.integers(1, 8),
)
def test_a_value_that_is_the_score_chooses_as_the_score_does(
    slot: int, width: int, stop: str, margin: float, redundancy: float, limit: int
) -> None:
    settings = {"width": width, "stop": stop, "margin": margin, "redundancy": redundancy, "max_sentences": limit}

    def judge(text: str) -> float:
        return 1 - number(text) / 10

    scored = run(clip_prm, World(numbers(slot), score=judge), **settings)
    valued = run(visvm, World(numbers(slot), score=judge, value=judge), **settings)
    assert (valued.sentences, valued.stop_reason) == (scored.sentences, scored.stop_reason)
    assert [row.chosen for row in valued.trace] == [row.chosen for row in scored.trace]


# As released


def test_released_greedy_comes_last_and_ends_the_loop_when_it_repeats() -> None:
    world = World(
        script(proposed("A.", "B."), proposed("C.", "D."), proposed("E.", "D.")), value=lambda text: -ord(text[0])
    )
    result = run(visvm, world, temperatures=(0.0, 0.5), published=True)
    assert [request.temperatures for request in world.of(Propose)] == [(0.5, 0.0)] * 3
    assert (result.text, result.stop_reason) == ("A. C.", "repeat")
    assert not world.of(Score)


def test_released_a_sentence_ends_at_any_full_stop() -> None:
    world = World(script(proposed("It is 3."), proposed("5 m.")), value=same)
    result = run(visvm, world, published=True, max_sentences=2)
    assert [request.until for request in world.of(Propose)] == [".", "."]
    assert (result.text, result.stop_reason) == ("It is 3. 5 m.", "max_sentences")


def test_released_repeated_and_empty_texts_are_candidates() -> None:
    steps = proposed("A.", "x."), ending("", "A."), proposed("A.", "y."), proposed("B.", "y.")
    values = by({"A.": 1.0, "": 2.0, "x.": 0, "y.": 0})
    world = World(script(*steps), value=values)
    result = run(visvm, world, published=True)
    assert (result.sentences, result.stop_reason) == (["A.", "A."], "repeat")
    assert [row.proposal.text for row in result.trace if row.chosen] == ["A.", "", "A."]
    after = [request.after.text if request.after else None for request in world.of(Propose)]
    assert after == [None, "A.", "A.", "A."]


def test_released_needs_no_margin_and_ignores_the_stop_rule() -> None:
    assert visvm.needs(Settings((0.0,), published=True)) == {"value"}
    assert clip_prm.needs(Settings((0.0,), published=True)) == {"scorer"}
    result = by_score(
        proposed("A."), proposed("B."), scores=by({"A.": 0.0, "B.": 0.0}), margin=9, published=True, max_sentences=2
    )
    assert result.text == "A. B."
