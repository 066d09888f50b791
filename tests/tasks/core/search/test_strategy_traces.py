"""What a trace shows of a search's choices, on invented ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.strategy_traces import in_words, trace_summary
from storage import lake
from storage.schema import Annotation, Caption, SearchStep
from tasks.search.search import CaptionsResult

DOG, CAT, SKY = "A dog sleeps.", "A cat sits.", "The sky is blue."


def step(
    number: int, candidate: int, text: str, guides: tuple, *, chosen: bool = False, phase: str | None = None
) -> SearchStep:
    value, score = guides
    return SearchStep("s1", "visvm", number, candidate, 0.0, text, score, None, value, chosen, False, None, phase)


def summary(text: str, steps: list[SearchStep]) -> dict:
    """Of one caption of an image that shows a dog."""
    caption = Caption("s1", "i1", "p", "visvm", text, 1, "reward", len(steps), 9)
    searched = CaptionsResult(lake.publish(Caption, [caption]), lake.publish(SearchStep, steps))
    return trace_summary(searched, lake.publish(Annotation, [Annotation("i1", ["dog"], [], [])]))


def test_what_was_proposed_and_what_was_chosen_are_counted_apart(home: Path) -> None:
    figures = summary(f"{DOG} {SKY}", [
        step(0, 0, DOG, (0.9, 0.5), chosen=True), step(0, 1, CAT, (0.1, 0.4)),
        step(1, 0, SKY, (0.3, 0.2), chosen=True), step(1, 1, CAT, (0.2, 0.3)),
    ])  # fmt: skip
    assert (figures["sentences"], figures["proposed"], figures["said"]) == (2, 0.5, 0)
    assert figures["stops"] == {"reward": 1}
    assert (figures["disagree"], figures["score_lost"]) == (0.5, pytest.approx(0.1))
    assert figures["tells"] == {"value": 1, "score": 1}
    assert "50% of the steps, which costs 0.100 of score" in in_words(figures)


def test_a_guide_that_prefers_what_is_not_there_does_not_separate(home: Path) -> None:
    figures = summary(CAT, [step(0, 0, DOG, (0.1, None)), step(0, 1, CAT, (0.9, None), chosen=True)])
    assert figures["tells"] == {"value": 0, "score": None}
    assert (figures["said"], figures["disagree"], figures["refined"]) == (1, None, {})


def test_the_fate_of_refined_sentences_and_what_was_missed(home: Path) -> None:
    figures = summary(f"{CAT} {SKY}", [
        step(0, 0, f"{CAT} {DOG} {SKY}", (0.5, None), chosen=True, phase="answers"),
        step(1, 0, CAT, (0.8, None), chosen=True, phase="refine"),
        step(2, 0, DOG, (0.1, None), phase="refine"), step(2, 1, SKY, (0.7, None), chosen=True, phase="refine"),
        step(3, 0, SKY, (0.1, None), phase="refine"),
    ])  # fmt: skip
    assert figures["refined"] == {"kept": 1 / 3, "replaced": 1 / 3, "dropped": 1 / 3}
    assert figures["missed"] == 1
    assert "of those kept 100.0% hallucinated" in in_words(figures)
