"""Searches over arithmetic: what is chosen, when it stops, what is written down."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from number_world import number, proposer, said, scorer, script, valuer

from tasks.core.search.answers import best_of_n, greedy
from tasks.core.search.contract import Candidate, Found, fresh
from tasks.core.search.guided import guided_search

GOLDEN = Path(__file__).parents[1] / "golden"
NEVER = {"stop": "reward", "margin": float("-inf"), "max_sentences": 4}


def one_slot(propose: Any, score: Any = scorer, value: Any = None, **options: Any) -> Found:
    return guided_search(propose, score, value, slots=[0], **{**NEVER, **options})[0]


def scores(by_text: dict[str, float | None]) -> Any:
    return lambda asked: [by_text[text] for _, text in asked]


# What is chosen


def test_search_follows_the_value_not_the_policy_and_not_the_score() -> None:
    found = one_slot(proposer(), value=valuer)
    for step in range(len(found.sentences)):
        rows = [row for row in found.trace if row.step == step and row.score is not None]
        (chosen,) = [row for row in rows if row.chosen]
        assert chosen.value == max(row.value for row in rows)
    assert any(row.chosen and row.candidate != 0 for row in found.trace)
    by_score = one_slot(proposer())
    assert by_score.sentences != found.sentences
    assert [number(text) for text in by_score.sentences] == [
        min(number(row.proposal.text) for row in by_score.trace if row.step == step and row.score is not None)
        for step in range(4)
    ]


def test_what_is_kept_is_what_the_next_step_goes_on_from() -> None:
    asked: list[Any] = []
    propose = proposer()

    def watched(kept: Any) -> Any:
        asked.append(dict(kept))
        return propose(kept)

    found = one_slot(watched, value=valuer)
    assert asked[0] == {0: None}
    assert [kept[0].text for kept in asked[1:]] == found.sentences[:-1]


def test_the_value_model_reads_what_was_said_before() -> None:
    prefixes: list[str] = []

    def value(asked: Any) -> list[float]:
        prefixes.append(asked[0][1])
        return [0.0 for _ in asked]

    one_slot(script(said("A."), said("B."), said("C.")), lambda asked: [1.0] * len(asked), value, max_sentences=3)
    assert prefixes == ["", "A.", "A. B."]


def test_on_equal_terms_greedy_wins() -> None:
    found = one_slot(script(said("A.", "B.", "C.")), lambda asked: [0.5] * len(asked), max_sentences=1)
    assert found.text == "A."


def test_a_sentence_that_was_said_is_no_candidate() -> None:
    found = one_slot(
        script(said("A dog."), said("a DOG!", "A cat.")), scores({"A dog.": 1, "A cat.": -1}), max_sentences=2
    )
    assert found.sentences == ["A dog.", "A cat."]
    repeat = found.trace[1]
    assert (repeat.proposal.text, repeat.score, repeat.chosen) == ("a DOG!", None, False)


def test_an_unscored_sentence_is_the_last_choice() -> None:
    steps = script(said("What?", "A dog."))
    assert one_slot(steps, scores({"What?": None, "A dog.": -0.9}), max_sentences=1).text == "A dog."
    assert one_slot(script(said("What?")), scores({"What?": None}), max_sentences=1).text == "What?"


def test_fresh_drops_empty_said_and_double_candidates() -> None:
    assert fresh(said("", "A.", "a", "B!", "...", "C."), ["b"]) == [1, 5]


# When it stops


def test_reward_stops_when_no_candidate_reaches_the_margin() -> None:
    by_text = {"A.": 0.9, "B.": 0.2, "C.": 0.5, "D.": 0.39, "E.": 0.1}
    steps = script(said("A."), said("B.", "C."), said("D.", "E."))
    found = one_slot(steps, scores(by_text), margin=0.4, max_sentences=9)
    assert (found.text, found.stop_reason) == ("A. C.", "reward")
    assert [row.stop for row in found.trace] == [None] * 4 + ["reward"]


def test_the_first_sentence_is_exempt_from_the_margin() -> None:
    steps = script(said("A.", "B."), said("C."))
    found = one_slot(steps, scores({"A.": 0.1, "B.": 0.2, "C.": 0.3}), margin=0.4)
    assert (found.text, found.stop_reason) == ("B.", "reward")


def test_the_value_chooses_among_those_that_reach_the_margin_only() -> None:
    by_text = {"Low.": 0.1, "High.": 0.9}
    worth = {"Low.": 1.0, "High.": 0.0}
    found = one_slot(
        script(said("Low.", "High.")), scores(by_text), lambda asked: [worth[text] for *_, text in asked],
        margin=0.4, max_sentences=1,
    )  # fmt: skip
    assert found.text == "High."


def ending(*texts: str) -> list[Candidate]:
    return [Candidate(text, 0.0, ended=not text, drawn=1, handle=i) for i, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("candidates", "text", "reason"),
    [
        (ending("B.", "", ""), "A.", "vote"),
        (ending("B.", "C.", "", ""), "A.", "vote"),
        (ending("B.", "C.", ""), "A. C.", "max_sentences"),
    ],
)
def test_vote_stops_when_half_of_the_candidates_end(candidates: list[Candidate], text: str, reason: str) -> None:
    by_text = {"A.": 0.0, "B.": 0.1, "C.": 0.2}
    found = one_slot(script(said("A."), candidates), scores(by_text), stop="vote", max_sentences=2)
    assert (found.text, found.stop_reason) == (text, reason)


def test_the_vote_ignores_the_margin_and_spares_the_first_sentence() -> None:
    found = one_slot(script(ending("", "", "A.")), scores({"A.": -1}), stop="vote", margin=0.9, max_sentences=1)
    assert found.text == "A."


@pytest.mark.parametrize("stop", ["reward", "vote", "chosen"])
def test_a_chosen_sentence_that_ends_the_answer_is_the_last(stop: str) -> None:
    steps = script([Candidate("A.", 0, True, 1, 0), Candidate("B.", 0, False, 1, 1)])
    found = one_slot(steps, scores({"A.": 0.9, "B.": 0.1}), stop=stop)
    assert (found.text, found.stop_reason) == ("A.", "end")


def test_chosen_goes_on_while_others_end() -> None:
    steps = script(said("A."), [*said("B."), *ending("", "", "")[0:2]], said("C."))
    found = one_slot(steps, lambda asked: [0.0] * len(asked), stop="chosen", max_sentences=3)
    assert (found.text, found.stop_reason) == ("A. B. C.", "max_sentences")


def test_nothing_new_to_say_is_a_repeat_and_silence_an_end() -> None:
    found = one_slot(script(said("A."), said("A.", "a")), scores({"A.": 1.0}))
    assert (found.text, found.stop_reason) == ("A.", "repeat")
    found = one_slot(script(said("A."), ending("", "A.")), scores({"A.": 1.0}))
    assert (found.text, found.stop_reason) == ("A.", "end")


def test_a_policy_that_says_nothing_gives_an_empty_caption_with_a_trace() -> None:
    found = one_slot(script(ending("", "")), scores({}))
    assert (found.text, found.stop_reason, len(found.trace)) == ("", "end", 2)


def test_an_unknown_rule_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'never': want one of reward, vote, chosen"):
        one_slot(script(), stop="never")


# Slots, traces


def with_slots(slots: list[int]) -> dict[int, Found]:
    return guided_search(proposer(), scorer, valuer, slots=slots, stop="reward", margin=-0.6, max_sentences=6)


def test_many_slots_at_once_are_one_slot_at_a_time() -> None:
    together = with_slots(list(range(12)))
    assert len({found.stop_reason for found in together.values()}) > 1
    assert len({len(found.sentences) for found in together.values()}) > 1
    for slot, found in together.items():
        assert with_slots([slot])[slot] == found


def test_a_finished_slot_is_never_asked_for_again() -> None:
    asked: list[set[int]] = []
    propose = proposer()

    def watched(kept: Any) -> Any:
        asked.append(set(kept))
        return propose(kept)

    guided_search(watched, scorer, valuer, slots=range(12), stop="reward", margin=-0.6, max_sentences=6)
    assert all(later <= earlier for earlier, later in pairwise(asked))


def trace(found: dict[int, Found]) -> Any:
    return {
        str(slot): {
            "sentences": one.sentences,
            "stop": one.stop_reason,
            "trace": [{**asdict(row), "proposal": row.proposal.text, "ended": row.proposal.ended} for row in one.trace],
        }
        for slot, one in found.items()
    }


GOLDEN_RUNS = {
    "visvm": lambda: with_slots([0, 1, 2]),
    "clip_prm": lambda: guided_search(
        proposer(2), scorer, None, slots=[0, 1], stop="chosen", margin=0, max_sentences=3
    ),
}


@pytest.mark.parametrize("name", GOLDEN_RUNS)
def test_the_whole_trace_is_the_one_on_record(name: str) -> None:
    assert trace(GOLDEN_RUNS[name]()) == json.loads((GOLDEN / f"guided_{name}.json").read_text())


# Whole answers


def test_greedy_takes_the_first_answer() -> None:
    answers = {0: said("A dog. A cat.", "B."), 1: [Candidate("", 0.0, True, 1, 0)]}
    found = greedy(lambda slots: {slot: answers[slot] for slot in slots}, slots=[0, 1])
    assert (found[0].text, found[0].stop_reason) == ("A dog. A cat.", "length")
    assert (found[1].text, found[1].sentences, found[1].stop_reason) == ("", [], "end")


def test_best_of_n_takes_the_best_mean_over_sentences() -> None:
    answers = said("It is red. It is blue.", "It is green.", "", "It is red. It is red. It is red. It is blue.")
    by_text = {"It is red.": 1.0, "It is blue.": 0.0, "It is green.": 0.6}
    found = best_of_n(lambda slots: dict.fromkeys(slots, answers), scores(by_text), slots=[0, 7])
    for one in found.values():
        assert one.text == answers[3].text
        assert [row.score for row in one.trace] == [0.5, 0.6, None, 0.75]


def test_best_of_n_never_prefers_silence_to_a_scored_answer() -> None:
    answers = ending("", "A.")
    found = best_of_n(lambda slots: {0: answers}, scores({"A.": -1.0}), slots=[0])
    assert found[0].text == "A."


def test_best_of_n_scores_every_answer_of_every_slot_in_one_batch() -> None:
    calls: list[int] = []

    def counting(asked: Any) -> list[float]:
        calls.append(len(asked))
        return [0.0] * len(asked)

    best_of_n(
        lambda slots: {slot: said("It is red. It is blue.", "It is green.") for slot in slots}, counting, slots=[0, 1]
    )
    assert calls == [6]


if __name__ == "__main__":  # writes the record anew: look at the difference before you keep it
    for name, run in GOLDEN_RUNS.items():
        (GOLDEN / f"guided_{name}.json").write_text(json.dumps(trace(run()), indent=1) + "\n")
