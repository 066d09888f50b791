"""What ends a sentence-level search: the policy's proposal to end competes, and the other rules."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.configs.search import FORMER_STOPS
from tasks.core.search.clip_prm import clip_prm
from tasks.core.search.contract import SearchResult
from tasks.core.search.requests import Candidate
from tasks.core.search.visvm import visvm
from tests.support.number_world import World, by, ending, number, numbers, numbers_and_ends, proposed, run, script
from tests.support.paths import GOLDEN

ENDS = ("action", "policy", "vote", "guide")


def by_score(*steps: list[Candidate], scores: Any, **settings: Any) -> SearchResult:
    return run(clip_prm, World(script(*steps), score=scores), **settings)


def by_value(*steps: list[Candidate], values: Any, **settings: Any) -> SearchResult:
    return run(visvm, World(script(*steps), value=values), **{"end_value": 0.0, **settings})


def same(text: str) -> float:
    return 0.5


# The end is an action


def test_the_end_is_taken_where_nothing_is_worth_more() -> None:
    values = by({"A.": 0.4, "B.": -0.1, "C.": -0.3})
    result = by_value(proposed("A."), ending("B.", "", "C."), values=values)
    assert (result.text, result.stop_reason) == ("A.", "end_value")
    assert [(row.value, row.chosen, row.stop) for row in result.trace[1:]] == [
        (-0.1, False, None), (None, False, None), (-0.3, False, "end_value")
    ]  # fmt: skip


def test_the_end_is_not_taken_while_a_candidate_is_worth_more_however_many_propose_it() -> None:
    values = by({"A.": 0.4, "B.": 0.1, "C.": -0.2})
    result = by_value(proposed("A."), ending("", "", "B.", ""), ending("C.", ""), values=values)
    assert (result.text, result.stop_reason) == ("A. B.", "end_value")


def test_nothing_ends_where_the_policy_does_not_propose_it() -> None:
    """Bad sentences alone are no reason to end: that is rule `guide`."""
    values = by({"A.": -0.5, "B.": -0.6, "C.": -0.7})
    steps = proposed("A."), proposed("B."), proposed("C.")
    result = by_value(*steps, values=values, max_sentences=3)
    assert (result.text, result.stop_reason) == ("A. B. C.", "max_sentences")
    assert by_value(*steps, values=values, end="guide").text == "A."


def test_a_sentence_that_ends_the_answer_is_no_proposal_to_end_here() -> None:
    """It is a candidate as others are; if it is chosen, it is the last."""
    last = [Candidate("B.", 0, True, 1), Candidate("C.", 0, False, 1)]
    values = by({"A.": 0.4, "B.": -0.2, "C.": -0.1})
    result = by_value(proposed("A."), last, ending("", ""), values=values)
    assert (result.text, result.stop_reason) == ("A. C.", "end")


def test_on_equal_terms_the_end_wins() -> None:
    result = by_value(proposed("A."), ending("B.", ""), values=by({"A.": 1.0, "B.": 0.0}))
    assert (result.text, result.stop_reason) == ("A.", "end_value")


@pytest.mark.parametrize("end", ENDS)
def test_the_first_sentence_is_exempt(end: str) -> None:
    result = by_value(ending("", "", "A.", "B."), values=by({"A.": -2.0, "B.": -1.0}), end=end, max_sentences=1)
    assert result.text == "B."


def test_the_end_may_be_worth_anything() -> None:
    steps, values = (proposed("A."), ending("B.", ""), ending("C.", "")), by({"A.": 1.0, "B.": 0.4, "C.": -0.4})
    ends = {worth: by_value(*steps, values=values, end_value=worth, max_sentences=3).text for worth in (0.5, 0.0, -0.5)}
    assert ends == {0.5: "A.", 0.0: "A. B.", -0.5: "A. B. C."}


def test_for_a_bare_score_the_end_is_worth_the_margin() -> None:
    steps, scores = (proposed("A."), ending("B.", ""), ending("C.", "")), by({"A.": 0.1, "B.": 0.3, "C.": 0.2})
    result = by_score(*steps, scores=scores, margin=0.25)
    assert (result.text, result.stop_reason) == ("A. B.", "end_value")
    assert by_score(*steps, scores=scores, margin=0.25, end_value=0.0, max_sentences=3).text == "A. B. C."


def test_what_can_not_be_scored_is_worth_less_than_the_end() -> None:
    result = by_score(proposed("A."), ending("What?", ""), scores=by({"A.": 0.1, "What?": None}), margin=0.25)
    assert (result.text, result.stop_reason) == ("A.", "end_value")


def test_greedy_ends_where_the_best_would() -> None:
    steps, values = (
        (proposed("A."), ending("B.", "C.", ""), ending("D.", "")),
        by({"A.": 1, "B.": -1, "C.": 1, "D.": -1}),
    )
    result = by_value(*steps, values=values, choose="greedy")
    assert (result.text, result.stop_reason) == ("A. B.", "end_value")


def test_the_redundancy_counts_in_what_is_compared_with_the_end() -> None:
    steps, values = (proposed("A red dog."), ending("A red cat.", "")), by({"A red dog.": 0.5, "A red cat.": 0.1})
    for end, reason in (("action", "end_value"), ("guide", "value")):
        ran = by_value(*steps, values=values, end=end, max_sentences=2)
        assert (ran.text, ran.stop_reason) == ("A red dog. A red cat.", "max_sentences")
        assert by_value(*steps, values=values, end=end, redundancy=0.5).stop_reason == reason


@given(
    slot=st.integers(0, 22),
    width=st.integers(2, 6),
    end_value=st.floats(-1, 1),
    choose=st.sampled_from(["best", "greedy"]),
)
def test_it_ends_exactly_where_the_end_is_proposed_and_worth_most(
    slot: int, width: int, end_value: float, choose: str
) -> None:
    def value(text: str) -> float:
        return 1 - number(text) / 10

    result = run(
        visvm, World(numbers_and_ends(slot), value=value), width=width, end_value=end_value, choose=choose, max_sentences=8
    )  # fmt: skip
    steps = [[row for row in result.trace if row.step == step] for step in range(result.trace[-1].step + 1)]
    for number_of_step, rows in enumerate(steps):
        guides = [row.value for row in rows if row.value is not None]
        proposes = any(row.proposal.ended and not row.proposal.text for row in rows)
        ends = number_of_step > 0 and proposes and bool(guides) and max(guides) <= end_value
        assert ends == (rows[-1].stop == "end_value")


@given(slot=st.integers(0, 22), low=st.floats(-1, 1), high=st.floats(-1, 1))
def test_the_more_the_end_is_worth_the_shorter_the_answer(slot: int, low: float, high: float) -> None:
    low, high = sorted((low, high))
    longer, shorter = (
        run(visvm, World(numbers_and_ends(slot)), width=5, end_value=worth, max_sentences=8).sentences
        for worth in (low, high)
    )
    assert longer[: len(shorter)] == shorter


# The other rules


@pytest.mark.parametrize(
    ("candidates", "text", "reason"),
    [
        (ending("B.", "", ""), "A.", "vote"),
        (ending("B.", "C.", "", ""), "A.", "vote"),
        (ending("B.", "C.", ""), "A. C.", "max_sentences"),
    ],
)
def test_vote_ends_when_half_of_the_candidates_do(candidates: list[Candidate], text: str, reason: str) -> None:
    scores = by({"A.": 0.0, "B.": 0.1, "C.": 0.2})
    result = by_score(proposed("A."), candidates, scores=scores, end="vote", margin=0.9, max_sentences=2)
    assert (result.text, result.stop_reason) == (text, reason)


@pytest.mark.parametrize("end", ENDS)
def test_a_chosen_sentence_that_ends_the_answer_is_the_last(end: str) -> None:
    candidates = [Candidate("A.", 0, True, 1), Candidate("B.", 0, False, 1)]
    result = by_score(candidates, scores=by({"A.": 0.9, "B.": 0.1}), end=end)
    assert (result.text, result.stop_reason) == ("A.", "end")


def test_policy_goes_on_while_others_end() -> None:
    result = by_score(proposed("A."), ending("B.", "", ""), proposed("C."), scores=same, end="policy", max_sentences=3)
    assert (result.text, result.stop_reason) == ("A. B. C.", "max_sentences")


def test_guide_ends_when_no_candidate_is_worth_more_than_ending() -> None:
    values = by({"A.": -0.5, "B.": 0.0, "C.": -0.1, "D.": -0.2})
    result = by_value(proposed("A."), proposed("B."), proposed("C.", "D."), values=values, end="guide")
    assert (result.text, result.stop_reason) == ("A. B.", "value")


@pytest.mark.parametrize("end", ENDS)
def test_the_filter_ends_when_no_candidate_reaches_the_margin(end: str) -> None:
    scores = by({"A.": 0.9, "B.": 0.2, "C.": 0.5, "D.": 0.39, "E.": 0.1})
    steps = proposed("A."), proposed("B.", "C."), proposed("D.", "E.")
    result = by_score(*steps, scores=scores, end=end, filter="margin", margin=0.4, max_sentences=9)
    assert (result.text, result.stop_reason) == ("A. C.", "reward")
    assert [row.stop for row in result.trace] == [None] * 4 + ["reward"]


def test_the_first_sentence_is_exempt_from_the_filter() -> None:
    scores = by({"A.": 0.1, "B.": 0.2, "C.": 0.3})
    result = by_score(proposed("A.", "B."), proposed("C."), scores=scores, filter="margin", margin=0.4)
    assert (result.text, result.stop_reason) == ("B.", "reward")


def test_no_new_sentence_is_a_repeat_and_an_empty_one_an_end() -> None:
    result = by_score(proposed("A."), proposed("A.", "a"), scores=same)
    assert (result.text, result.stop_reason) == ("A.", "repeat")
    result = by_score(proposed("A."), ending("", "A."), scores=same)
    assert (result.text, result.stop_reason) == ("A.", "end")


# The former setting


@pytest.mark.parametrize("stop", FORMER_STOPS)
def test_a_former_stop_rule_in_its_present_spelling_gives_the_same_captions(stop: str) -> None:
    """On record: what the four rules gave when they were the values of `stop`."""
    runs = {
        f"{stop} {strategy} {world.__name__} {slot}": run(
            {"clip_prm": clip_prm, "visvm": visvm}[strategy],
            World(world(slot), value=lambda text: 0.6 - abs(number(text) - 11) / 11),
            width=5, margin=-0.3, max_sentences=9, **FORMER_STOPS[stop],
        )
        for strategy in ("clip_prm", "visvm") for world in (numbers, numbers_and_ends) for slot in (0, 3, 8, 13)
    }  # fmt: skip
    recorded = json.loads((GOLDEN / "stop_rules.json").read_text())
    assert {
        name: {
            "sentences": result.sentences,
            "stop": result.stop_reason,
            "chosen": [row.candidate for row in result.trace if row.chosen],
        }
        for name, result in runs.items()
    } == {name: rest for name, rest in recorded.items() if name.startswith(f"{stop} ")}
