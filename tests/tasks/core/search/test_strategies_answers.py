"""Strategies that choose among whole answers."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.core.search.best_of_n import best_of_n
from tasks.core.search.contract import Settings
from tasks.core.search.greedy import greedy
from tasks.core.search.majority_vote import majority_vote, normalise
from tasks.core.search.outside import beam, contrastive, diverse_beam
from tasks.core.search.requests import Ask, Candidate, Generate, Propose, Score, SplitSentences, Value
from tasks.core.search.sample import sample
from tests.support.number_world import World, by, ending, numbers, proposed, run, script


def test_greedy_requests_one_answer_that_is_not_kept() -> None:
    world = World(script(proposed("A dog. A cat.")))
    result = run(greedy, world, max_new_tokens=7)
    assert world.requests == [Propose(None, (0.0,), "answer", 7, keep=False)]
    assert (result.text, result.stop_reason) == ("A dog. A cat.", "length")
    result = run(greedy, World(script(ending(""))))
    assert (result.text, result.sentences, result.stop_reason) == ("", [], "end")


@pytest.mark.parametrize(
    ("temperatures", "options", "drawn_at"),
    [((0.0, 0.3, 0.9), {}, 0.9), ((0.9, 0.3, 0.0), {}, 0.3), ((0.0,), {"temperature": 2}, 2.0)],
)
def test_sample_takes_the_last_temperature_above_0(temperatures: Any, options: Any, drawn_at: float) -> None:
    world = World(numbers())
    result = run(sample, world, temperatures=temperatures, options=options)
    assert world.requests[0].temperatures == (drawn_at,)
    assert result.trace[0].chosen


def test_sample_without_a_temperature_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="no temperature above 0: give one"):
        run(sample, World(numbers()), temperatures=(0.0,))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heat": 1}, "unknown option heat for this strategy: want temperature"),
        ({"temperature": "hot"}, "temperature is 'hot': want a number"),
        ({"temperature": True}, "temperature is True: want a number"),
    ],
)
def test_an_option_that_cannot_be_is_an_error(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(sample, World(numbers()), options=options)


def test_a_count_is_a_whole_number() -> None:
    with pytest.raises(ValueError, match=r"max_tokens is 2\.5: want a whole number, at least 1"):
        run(majority_vote, World(numbers()), options={"max_tokens": 2.5})
    with pytest.raises(ValueError, match="max_tokens is 0"):
        run(majority_vote, World(numbers()), options={"max_tokens": 0})


# Best of n


def test_best_of_n_takes_the_best_mean_over_sentences() -> None:
    answers = proposed("It is red. It is blue.", "It is green.", "", "It is red. It is red. It is red. It is blue.")
    world = World(script(answers), score=by({"It is red.": 1.0, "It is blue.": 0.0, "It is green.": 0.6}))
    result = run(best_of_n, world)
    assert result.text == answers[3].text
    assert [row.score for row in result.trace] == [0.5, 0.6, None, 0.75]
    assert [len(request.texts) for request in world.of(Score)] == [7], "one request for all"
    assert not world.requests[0].keep


def test_best_of_n_by_value_takes_the_best_mean_value_each_after_its_prefix() -> None:
    answers = proposed("It is red. It is blue.", "It is green.", "")
    world = World(script(answers), value=by({"It is red.": 1.0, "It is blue.": 0.0, "It is green.": 0.4}))
    result = run(best_of_n, world, by="value")
    assert result.text == answers[0].text
    assert [row.value for row in result.trace] == [0.5, 0.4, None]
    (request,) = world.of(Value)
    assert [(before, sentence.text) for before, sentence in request.items] == [
        ("", "It is red."), ("It is red.", "It is blue."), ("", "It is green."),
    ]  # fmt: skip
    assert world.requests[0].keep and len(world.of(SplitSentences)) == 2


def test_best_of_n_by_judge_holds_a_tournament() -> None:
    def longest(question: str) -> str:
        first, second = question.split("Response 1:\n")[1].split("\n\nResponse 2:\n")
        return f"I choose response {1 if len(first) > len(second.split(chr(10))[0]) else 2}."

    world = World(script(proposed("A.", "A dog.", "", "A dog runs.", "Dogs.")), judge=longest)
    assert run(best_of_n, world, by="judge").text == "A dog runs."
    assert len(world.of(Ask)) == 2 * 3, "an empty answer doesn't take part"


@pytest.mark.parametrize(
    ("by", "needs"), [(None, {"scorer"}), ("score", {"scorer"}), ("value", {"value"}), ("judge", set())]
)
def test_best_of_n_needs_what_picks_the_winner(by: Any, needs: set[str]) -> None:
    assert best_of_n.needs(Settings((0.0,), by=by)) == needs


def test_best_of_n_never_prefers_silence_to_an_answer() -> None:
    assert run(best_of_n, World(script(ending("", "A.")), score=by({"A.": -1.0}))).text == "A."
    assert run(best_of_n, World(script(ending("", "A.")), score=by({"A.": None}))).text == "A."


# Majority vote


@pytest.mark.parametrize(
    ("answer", "key"),
    [
        ("The  Two dogs!", "2 dogs"), ("two, dogs", "2 dogs"), ("1,000.50", "1000.50"), ("-5", "-5"), ("5.", "5"),
        ("2-3", "2 3"), ("None.", "0"), ("an apple", "apple"), ("It's red", "it's red"), ("?", ""),
    ],
)  # fmt: skip
def test_answers_are_compared_as_vqa_does(answer: str, key: str) -> None:
    assert normalise(answer) == key


def test_the_most_frequent_answer_wins_in_its_first_wording() -> None:
    result = run(majority_vote, World(script(proposed("Red.", "The two!", "blue", "2", ""))))
    assert (result.text, [row.chosen for row in result.trace]) == ("The two!", [False, True, False, False, False])


def test_on_equal_votes_the_earliest_wins_and_silence_has_no_vote() -> None:
    assert run(majority_vote, World(script(proposed("", "", "red", "blue", "blue", "red")))).text == "red"
    assert run(majority_vote, World(script(ending("", "")))).text == ""


def test_the_vote_limits_the_length_of_its_answers() -> None:
    world = World(numbers())
    run(majority_vote, world, options={"max_tokens": 8})
    assert (world.requests[0].max_tokens, world.requests[0].keep) == (8, False)


# Methods of transformers


@pytest.mark.parametrize(
    ("strategy", "method", "options"),
    [
        (beam, "beam", {"num_beams": 3}),
        (diverse_beam, "diverse_beam", {"num_beams": 3, "groups": 3, "diversity_penalty": 0.5}),
        (contrastive, "contrastive", {"top_k": 4, "penalty_alpha": 0.6}),
    ],
)
def test_a_method_of_transformers_is_one_request_with_options_passed_on(
    strategy: Any, method: str, options: Any
) -> None:
    world = World(numbers())
    result = run(strategy, world, max_new_tokens=9, options={"length_penalty": 2.0})
    assert world.requests == [Generate(method, tuple(sorted((options | {"length_penalty": 2.0}).items())), 9)]
    assert (result.text, result.stop_reason, len(result.trace)) == ("Say 1. Say 4.", "end", 1)
    given = next(iter(options))
    run(strategy, world, options={given: 2})
    assert dict(world.requests[1].options)[given] == 2
    with pytest.raises(ValueError, match="'many': want a number, true or false"):
        run(strategy, world, options={given: "many"})


def test_an_answer_that_was_cut_off_is_marked_so() -> None:
    world = World(script([Candidate("A dog and", 0.0, False, 3)]))
    assert run(majority_vote, world, width=1).stop_reason == "length"
