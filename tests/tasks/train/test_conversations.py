"""Which answers are turns of one conversation."""

from __future__ import annotations

import pytest

from storage.schema import Caption, Sample
from tasks.train.conversations import conversations


def sample(name: str, follows: str | None = None) -> Sample:
    return Sample(name, "image", f"{name}?", "train", follows)


def caption(name: str, strategy: str = "swires") -> Caption:
    return Caption(name, "image", "p", strategy, f"{name}!", 1, "end", 1, 1)


def grouped(samples: list[Sample], *names: str) -> list[str]:
    return ["".join(row.sample_id for row in group) for group in conversations(samples, [caption(n) for n in names])]


SAMPLES = [sample("x"), sample("a"), sample("b", "a"), sample("c", "b"), sample("p"), sample("q", "p")]


def test_turns_follow_each_other_in_their_order() -> None:
    assert grouped(SAMPLES, "c", "x", "a", "q", "b", "p") == ["abc", "x", "pq"]


def test_a_turn_without_an_answer_is_left_out() -> None:
    assert grouped(SAMPLES, "c", "a") == ["ac"] and grouped(SAMPLES, "c", "b") == ["bc"]
    assert grouped([item for item in SAMPLES if item.sample_id != "a"], "c", "b", "x") == ["bc", "x"]


def test_prompts_by_themselves_stay_alone() -> None:
    assert grouped([sample("x"), sample("y")], "y", "x") == ["y", "x"]
    several = conversations(
        SAMPLES, [caption("a"), caption("b"), caption("a", "other"), caption("x"), caption("x", "o")]
    )
    assert [[row.strategy for row in group] for group in several] == [["swires"] * 2, ["other"], ["swires"], ["o"]]


def test_a_circle_is_an_error_and_no_endless_loop() -> None:
    with pytest.raises(ValueError, match="follows itself"):
        grouped([sample("a", "b"), sample("b", "a")], "a")
