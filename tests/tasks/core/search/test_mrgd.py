"""MRGD on a made world: sentences name objects, scores are a table, and five objects are in the image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tasks.core.models.object_list import objects_named
from tasks.core.search.clip_prm import clip_prm
from tasks.core.search.contract import SearchResult, Settings
from tasks.core.search.mrgd import mrgd
from tasks.core.search.requests import Candidate, Complete, Propose, Request, Score, Value
from tasks.core.search.visvm import visvm
from tests.support.number_world import World, number, numbers, run, script

THERE = frozenset(["dog", "cat", "pizza", "car", "boat"])
SCORES = {"A dog.": 0.30, "A dog and a cat.": 0.26, "The sky.": 0.34, "A pizza, a car, a boat.": 0.10, "A zebra.": 0.05}
MARGIN, STD = 0.2, 0.1


def share(so_far: str, text: str) -> float:
    return len((objects_named(so_far) | objects_named(text)) & THERE) / len(THERE)


class Scene(World):
    """A world that also knows which objects are there."""

    def __call__(self, request: Request) -> Any:
        if isinstance(request, Complete):
            self.requests.append(request)
            return [share(*item) for item in request.items]
        return super().__call__(request)


def scene(*steps: list[str]) -> Scene:
    """Each step's sentences are proposed in order; an empty one ends the answer."""
    proposals = [[Candidate(text, 0.0, not text, 1, handle=1) for text in step] for step in steps]
    return Scene(script(*proposals), score=SCORES.__getitem__, value=lambda text: SCORES[text] - MARGIN)


def searched(world: World, w: float, **settings: Any) -> SearchResult:
    options = {"w": w, "reward_std": STD}
    return run(mrgd, world, **{"margin": MARGIN, "max_sentences": 3, "options": options, **settings})


@pytest.mark.parametrize(
    ("w", "chosen"),
    [(1, "The sky."), (0.5, "A dog and a cat."), (0, "A pizza, a car, a boat.")],
)
def test_the_weight_leads_from_the_most_correct_sentence_to_the_most_complete(w: float, chosen: str) -> None:
    result = searched(scene(["A dog.", "The sky.", "A dog and a cat.", "A pizza, a car, a boat."]), w, max_sentences=1)
    assert result.sentences == [chosen]


def test_a_guide_is_the_weighted_sum_of_correctness_and_the_share_added() -> None:
    world = scene(["A dog."], ["A dog and a cat.", "A zebra."])
    result = searched(world, 0.25, max_sentences=2)
    rows = {row.proposal.text: row for row in result.trace}
    # The logistic function of (score - margin) / reward_std: of 1, 0.6 and -1.5.
    assert rows["A dog."].value == pytest.approx(0.25 * 0.731059 + 0.75 * 0.2, abs=1e-6)
    assert rows["A dog and a cat."].value == pytest.approx(0.25 * 0.645656 + 0.75 * 0.2, abs=1e-6)
    assert rows["A zebra."].value == pytest.approx(0.25 * 0.182426, abs=1e-6)
    assert rows["A dog."].score == 0.30 and world.of(Score)[1].before == ("A dog.", "A dog.")


def test_what_was_named_before_adds_nothing() -> None:
    world = scene(["A dog and a cat."], ["A dog.", "A pizza, a car, a boat."], ["A dog.", "A zebra.", ""])
    result = searched(world, 0)
    assert result.text == "A dog and a cat. A pizza, a car, a boat." and result.stop_reason == "end_value"


@pytest.mark.parametrize("end", ["action", "policy", "vote", "guide"])
@pytest.mark.parametrize("slot", range(6))
def test_with_w_one_it_is_clip_prm_and_by_value_visvm(end: str, slot: int) -> None:
    def alike(propose: Callable[[], Callable[[Propose], list[Candidate]]], **more: Any) -> None:
        settings = {"end": end, "margin": 0.35, "max_sentences": 6, **more}
        for plain, by in ((clip_prm, None), (visvm, "value")):
            bound = {"end_value": -0.5} if by else {}
            theirs = run(plain, World(propose()), **settings, **bound)
            options = {"w": 1, "reward_std": 0.37}
            ours = run(mrgd, Scene(propose()), **settings, **bound, by=by, options=options)
            assert (ours.sentences, ours.stop_reason) == (theirs.sentences, theirs.stop_reason)

    alike(lambda: numbers(slot, ends_after=2))
    alike(lambda: numbers(slot, ends_after=2), filter="margin")
    alike(lambda: ending_numbers(slot))


def ending_numbers(slot: int) -> Callable[[Propose], list[Candidate]]:
    """As `numbers`; from the second step on the greedy candidate proposes to end."""
    inner = numbers(slot)

    def propose(request: Propose) -> list[Candidate]:
        first, *others = inner(request)
        return [replace(first, text="", ended=True) if request.after else first, *others]

    return propose


@pytest.mark.parametrize(
    ("w", "second", "stop"),
    [
        # Nothing is added: correctness decides against end_value, which is the margin.
        (0.5, "A zebra.", "end_value"),
        (0.5, "The sky.", None),
        # Wrong by the scorer, but three objects are added: worth it unless correctness is nearly all that counts.
        (0.5, "A pizza, a car, a boat.", None),
        (0.9, "A pizza, a car, a boat.", "end_value"),
        # With w = 0 a true sentence that adds nothing is not worth saying.
        (0, "The sky.", "end_value"),
    ],
)
def test_ending_adds_no_object_and_is_as_correct_as_end_value(w: float, second: str, stop: str | None) -> None:
    result = searched(scene(["A dog."], [second, ""]), w, max_sentences=2)
    assert result.sentences == (["A dog."] if stop else ["A dog.", second])
    assert result.stop_reason == (stop or "max_sentences")


def test_end_value_is_on_the_scale_of_the_score() -> None:
    steps = ["A dog."], ["A dog.", "The sky.", ""]
    assert searched(scene(*steps), 0.5, end_value=0.35, max_sentences=2).stop_reason == "end_value"
    assert searched(scene(*steps), 0.5, end_value=0.33, max_sentences=2).sentences == ["A dog.", "The sky."]


def test_the_first_sentence_is_exempt_and_an_end_must_be_proposed() -> None:
    assert searched(scene(["A zebra.", ""]), 0, max_sentences=1).sentences == ["A zebra."]
    assert searched(scene(["A dog."], ["A zebra."]), 0, max_sentences=2).stop_reason == "max_sentences"
    assert searched(scene(["A dog."], ["A zebra."]), 0.5, max_sentences=2, end="guide").stop_reason == "value"


def test_what_has_no_weight_is_not_asked_for() -> None:
    kinds = {}
    for w in (0, 0.5, 1):
        world = scene(["A dog."], ["A zebra.", ""])
        searched(world, w, max_sentences=2)
        kinds[w] = {type(request) for request in world.requests} - {Propose}
    assert kinds == {0: {Complete}, 0.5: {Score, Complete}, 1: {Score}}
    world = scene(["A dog."])
    searched(world, 0.5, by="value", end_value=0.0, max_sentences=1)
    assert {type(request) for request in world.requests} == {Propose, Value, Complete}


def test_a_sentence_that_cannot_be_scored_is_the_last_choice_unless_correctness_has_no_weight() -> None:
    def propose(request: Propose) -> list[Candidate]:
        return [Candidate(f"A dog {n}.", 0.0, False, 1, handle=1) for n in (13, 30)]

    def score(text: str) -> float | None:
        return None if number(text) == 13 else -9.0

    settings = {"max_sentences": 1}
    assert searched(Scene(propose, score=score), 0.5, **settings).sentences == ["A dog 30."]
    assert searched(Scene(propose, score=score), 0, **settings).sentences == ["A dog 13."]


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, {"scorer", "margin", "answers", "objects"}),
        ({"options": {"w": 0}}, {"objects"}),
        ({"options": {"w": 0}, "filter": "margin"}, {"objects", "scorer", "margin"}),
        ({"options": {"w": 1, "reward_std": 0.1}}, {"scorer", "margin"}),
        ({"by": "value"}, {"value", "end_value", "answers", "objects"}),
        ({"by": "value", "end_value": 0.1}, {"value", "answers", "objects"}),
    ],
)
def test_it_needs_what_it_weighs(settings: dict[str, Any], wanted: set[str]) -> None:
    assert mrgd.needs(Settings((0.0,), **settings)) == wanted


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"options": {"w": 1.5}}, "option w is 1.5: want the weight of correctness, 0 to 1"),
        ({"options": {"w": float("nan")}}, "option w is nan"),
        ({"options": {"w": "high"}}, "want a number"),
        ({"options": {"weight": 0.5}}, "unknown option weight"),
        ({"options": {"reward_std": 0.0}}, "must differ in score"),
        ({"by": "judge"}, "want by score or value"),
        ({"published": True}, "set search.published to false"),
    ],
)
def test_what_it_cannot_use_is_refused(settings: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        mrgd.needs(Settings((0.0,), **settings))
