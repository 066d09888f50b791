"""`published`: the released loops against a transcription of them over the same made world."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tasks.core.search.clip_prm import clip_prm
from tasks.core.search.requests import ANSWER, Candidate, Propose, Value
from tasks.core.search.vimar import vimar
from tasks.core.search.visvm import visvm
from tests.support.number_world import World, by, ending, proposed, run, script

DOG, CAT, CAR = "A dog sits.", "A cat sleeps.", "A car waits."
DRAFT = f"{DOG} {CAT}"
Steps = list[list[str]]


def worth(text: str) -> float:
    return {DOG: 0.3, CAT: 0.2, CAR: 0.1, "": 0.25}[text]


# A run by hand of VisVM's released loop: append the step's best, then compare the last candidate with the step before's


def visvm_by_hand(steps: Steps) -> str:
    """The loop over texts alone; `steps` are the candidates of each round, the greedy one last."""
    answer, last_before = "", None
    for texts in steps:
        winner = max(texts, key=worth)
        answer += (" " if answer and winner else "") + winner
        if texts[-1] == last_before:
            break
        last_before = texts[-1]
    return answer


def vimar_by_hand(draft: str, kept: str, steps: Steps) -> str:
    """ViMaR's second stage: it appends to the whole draft, and only the first comparison knows which sentences were kept."""
    answer, winner_before = draft, kept
    for texts in steps:
        winner = max(texts, key=worth)
        answer += (" " if answer and winner else "") + winner
        if winner == winner_before:
            break
        winner_before = winner
    return answer


def rounds(steps: Steps) -> Callable[[Propose], list[Candidate]]:
    """The candidates of each round; a whole answer is `DRAFT`."""
    left = iter(steps)

    def propose(request: Propose) -> list[Candidate]:
        if request.until == ANSWER:
            return proposed(*[DRAFT] * len(request.temperatures), ended=True)
        return ending(*next(left))

    return propose


drawn_rounds = st.lists(st.lists(st.sampled_from([DOG, CAT, CAR, ""]), min_size=3, max_size=3), min_size=6, max_size=6)


@given(drawn_rounds)
def test_visvm_as_released_is_the_run_by_hand(steps: Steps) -> None:
    world = World(rounds(steps), value=worth)
    assert run(visvm, world, published=True, max_sentences=6).text == visvm_by_hand(steps)


@given(drawn_rounds)
def test_clip_prm_as_released_is_the_run_by_hand(steps: Steps) -> None:
    world = World(rounds(steps), score=worth)
    assert run(clip_prm, world, published=True, max_sentences=6).text == visvm_by_hand(steps)


@given(drawn_rounds, st.sampled_from([("", 1.0), (DOG, 0.25), (DRAFT, 0.0)]))
def test_vimar_as_released_is_the_run_by_hand(steps: Steps, bound: tuple[str, float]) -> None:
    kept, threshold = bound

    def value(text: str) -> float:
        return 1.0 if text == DRAFT else worth(text)

    world = World(rounds(steps), value=value)
    result = run(vimar, world, published=True, max_sentences=6, options={"threshold": threshold})
    assert result.text == vimar_by_hand(DRAFT, kept, steps)


def test_the_step_that_ends_the_loop_is_appended_first() -> None:
    world = World(
        script(proposed("A.", "B."), proposed("C.", "D."), proposed("E.", "D.")), value=lambda text: -ord(text[0])
    )
    result = run(visvm, world, temperatures=(0.0, 0.5), published=True)
    assert [request.temperatures for request in world.of(Propose)] == [(0.5, 0.0)] * 3
    assert (result.text, result.stop_reason) == ("A. C. D.", "repeat")
    assert [row.proposal.text for row in result.trace if row.chosen] == ["A.", "C.", "D."]
    assert len(world.of(Value)) == 3


def test_a_sentence_ends_at_any_full_stop() -> None:
    world = World(script(proposed("It is 3."), proposed("5 m.")), value=lambda text: 0.5)
    result = run(visvm, world, published=True, max_sentences=2)
    assert [request.until for request in world.of(Propose)] == [".", "."]
    assert (result.text, result.stop_reason) == ("It is 3. 5 m.", "max_sentences")


def test_repeated_and_empty_texts_are_candidates() -> None:
    steps = proposed("A.", "x."), ending("", "A."), proposed("A.", "y."), proposed("B.", "y.")
    world = World(script(*steps), value=by({"A.": 1.0, "": 2.0, "B.": 0.5, "x.": 0, "y.": 0}))
    result = run(visvm, world, published=True)
    assert (result.sentences, result.stop_reason) == (["A.", "A.", "B."], "repeat")
    assert [row.proposal.text for row in result.trace if row.chosen] == ["A.", "", "A.", "B."]
    after = [request.after.text if request.after else None for request in world.of(Propose)]
    assert after == [None, "A.", "A.", "A."]


def test_neither_margin_nor_filter_nor_end_are_looked_at() -> None:
    settings: dict[str, Any] = {"margin": 9, "filter": "margin", "end": "guide", "end_value": 9}
    world = World(script(proposed("A."), proposed("B.")), score=lambda text: 0.0)
    assert run(clip_prm, world, published=True, max_sentences=2, **settings).text == "A. B."
