"""SWIRES: when it returns to the captions, what it continues from, and what it does without tags."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.search.contract import SearchResult, Settings
from tasks.core.search.requests import Candidate, Propose, Score
from tasks.core.search.stages import STAGES, closing, content
from tasks.core.search.swires import swires
from tests.support.number_world import World, ending, number, proposed, run, script


def worth(text: str) -> float:
    """Of "Worth N.": N."""
    return float(number(text))


def rounds(*rewards: tuple[int, ...], captions: tuple[int, ...] = (1, 2, 3, 4)) -> Callable[[Propose], list[Candidate]]:
    """A policy whose reasonings of the r-th round are worth rewards[r], in order; a conclusion is worth 5, 6, 7 ..."""
    left, conclusions, this_round = list(rewards), iter(range(5, 99)), []  # type: ignore[var-annotated]

    def propose(request: Propose) -> list[Candidate]:
        count = len(request.temperatures)
        if request.until == "</SUMMARY>":
            numbers = [0]
        elif request.until == "</CAPTION>":
            this_round[:] = left.pop(0)
            numbers = list(captions)[:count]
        elif request.until == "</REASONING>":
            numbers = [this_round.pop(0) for _ in range(count)]
        else:
            numbers = [next(conclusions) for _ in range(count)]
        tag = request.until[2:-1]
        return [Candidate(f"<{tag}>Worth {n}.</{tag}>", 0.6, False, 5, handle=1) for n in numbers]

    return propose


def retrace(world: World, *, cutoff: float = 10.0, options: Any = None, **settings: Any) -> SearchResult:
    world.score = worth
    return run(swires, world, options={"reward_mean": cutoff, "reward_std": 0.0} | (options or {}), **settings)


def drawn(world: World, stage: str) -> list[Propose]:
    return [request for request in world.of(Propose) if request.until == closing(stage)]


@pytest.mark.parametrize(
    ("rewards", "rounds_taken", "reason"),
    [
        ([(11, 12, 1, 1)], 1, "cutoff"),
        ([(11, 1, 1, 1), (1, 1, 1, 12)], 2, "cutoff"),  # the pool is of all rounds
        ([(99, 10, 1, 1), (1, 1, 1, 1), (11, 1, 1, 1)], 3, "cutoff"),  # 10 doesn't exceed 10
        ([(99, 1, 1, 1), (1, 1, 1, 1), (1, 1, 1, 1)], 3, "rounds"),
    ],
)
def test_it_retraces_until_the_second_best_exceeds_the_cutoff(rewards: Any, rounds_taken: int, reason: str) -> None:
    world = World(rounds(*rewards))
    result = retrace(world)
    assert (len(drawn(world, "CAPTION")), result.stop_reason) == (rounds_taken, reason)
    assert len(drawn(world, "SUMMARY")) == 1
    assert all(request.after.text == "<SUMMARY>Worth 0.</SUMMARY>" for request in drawn(world, "CAPTION"))


@given(st.lists(st.tuples(*[st.integers(0, 20)] * 4), min_size=5, max_size=5), st.integers(1, 5), st.integers(0, 20))
def test_it_never_takes_more_rounds_than_allowed_nor_than_needed(rewards: Any, most: int, cutoff: int) -> None:
    world = World(rounds(*rewards))
    result = retrace(world, cutoff=cutoff, options={"rounds": most})
    good = [sum(reward > cutoff for row in rewards[: n + 1] for reward in row) >= 2 for n in range(most)]
    needed = good.index(True) + 1 if True in good else most
    assert len(drawn(world, "CAPTION")) == needed
    assert result.stop_reason == ("cutoff" if True in good else "rounds")


def test_the_best_captions_are_reasoned_from_and_the_best_reasonings_concluded() -> None:
    world = World(rounds((11, 3, 12, 13), captions=(1, 9, 3, 7)))
    result = retrace(world)
    assert [content(request.after.text, "CAPTION") for request in drawn(world, "REASONING")] == ["Worth 9.", "Worth 7."]
    assert [content(request.after.text, "REASONING") for request in drawn(world, "CONCLUSION")] == [
        "Worth 13.",
        "Worth 12.",
    ]
    assert [content(text, tag) for text, tag in zip(result.sentences, STAGES, strict=True)] == [
        "Worth 0.", "Worth 7.", "Worth 12.", "Worth 6.",
    ]  # fmt: skip
    assert [row.proposal.text for row in result.trace if row.chosen] == result.sentences
    assert [row.phase for row in result.trace if row.chosen] == ["summary", "caption", "reasoning", "conclusion"]
    assert result.trace[0].score is None and all(row.score is not None for row in result.trace[1:])


def test_the_cutoff_comes_from_a_warm_up_batch() -> None:
    options = {"reward_mean": 10.0, "reward_std": 2.0}  # 10.5066
    assert retrace(World(rounds((11, 11, 1, 1))), options=options).stop_reason == "cutoff"
    assert retrace(World(rounds(*[(10, 11, 1, 1)] + [(1, 1, 1, 1)] * 2)), options=options).stop_reason == "rounds"
    assert swires.needs(Settings((0.0,))) == {"scorer", "answers"}
    with pytest.raises(ValueError, match="no cutoff"):
        run(swires, World(rounds()), options={})
    assert (
        swires.needs(Settings((0.0,), options=options)) == swires.needs(Settings((0.0,), published=True)) == {"scorer"}
    )
    with pytest.raises(ValueError, match="one of reward_mean and reward_std"):
        run(swires, World(rounds()), options={"reward_mean": 1.0})


def test_released_five_rounds_a_fixed_cutoff_and_three_conclusions() -> None:
    low = World(rounds(*[(-1, -1, -1, -1)] * 5))
    assert retrace(low, published=True, cutoff=-9.0).stop_reason == "rounds"
    assert (len(drawn(low, "CAPTION")), len(drawn(low, "CONCLUSION"))) == (5, 3)
    assert retrace(World(rounds((0, 0, -1, -1))), published=True).stop_reason == "cutoff"


def test_without_tags_whole_answers_are_retraced() -> None:
    answers = proposed("Worth 1.", "Worth 2.", ended=True), proposed("Worth 9.", "Worth 4.", ended=True)
    world = World(script(proposed("Worth 3.", ended=True), *answers))
    result = retrace(world, cutoff=3.0, options={"captions": 2})
    assert (result.text, result.stop_reason, len(world.of(Propose))) == ("Worth 9.", "cutoff", 3)
    assert [request.until for request in world.of(Propose)[1:]] == ["answer", "answer"]
    assert [row.proposal.text for row in result.trace if row.chosen] == ["Worth 9."]


def test_a_policy_that_never_reasons_leaves_its_best_caption() -> None:
    captions = proposed(*(f"<CAPTION>Worth {n}.</CAPTION>" for n in (1, 4, 2)))
    steps = proposed("<SUMMARY>Worth 0.</SUMMARY>"), captions, ending("", ""), ending("", "")
    world = World(script(*steps))
    result = retrace(world, options={"rounds": 1, "captions": 3})
    assert (result.sentences[-1], result.stop_reason) == ("<CAPTION>Worth 4.</CAPTION>", "unfinished")


def test_a_summary_that_is_cut_off_is_all_there_is() -> None:
    result = retrace(World(script(proposed("<SUMMARY>Worth"))))
    assert (result.text, result.stop_reason, result.trace[0].chosen) == ("<SUMMARY>Worth", "length", True)


def test_rewards_are_means_over_sentences_requested_once_a_stage() -> None:
    world = World(script(proposed("Plan."), proposed("Worth 1. Worth 2.", "Worth 9.")))
    result = retrace(world, options={"rounds": 1, "captions": 2})
    assert [row.score for row in result.trace[1:]] == [1.5, 9.0]
    assert world.of(Score) == [Score(("Worth 1.", "Worth 2.", "Worth 9."), ("", "Worth 1.", ""))]
