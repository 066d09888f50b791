"""Random numbers in place of V: whose they are, and that nothing else decides them."""

from __future__ import annotations

import pytest

from tasks.core.engine.random_values import RandomValues
from tasks.core.search.requests import Candidate

HELD_OUT = [0.4, -0.2, 0.1, 0.9, -0.7]


def of(seed: int = 0, values: list[float] = HELD_OUT, name: str = "s1") -> RandomValues:
    return RandomValues(values, seed=seed, name=lambda job: f"{name}-{job}")


def items(count: int = 400, job: int = 0, before: str = "") -> list:
    return [(job, before, Candidate(f"Say {n}.", 0.0, False, 1)) for n in range(count)]


def test_all_are_values_of_held_out_sentences_about_equally_often() -> None:
    drawn = of().value({}, items(2000))
    assert set(drawn) == set(HELD_OUT)
    assert all(320 < drawn.count(value) < 480 for value in HELD_OUT)


def test_a_candidate_keeps_its_number_in_any_batch_and_order() -> None:
    together = of().value({}, items())
    assert of().value({}, items()[::-1])[::-1] == together
    assert [of(values=HELD_OUT[::-1]).value({}, [item])[0] for item in items()] == together


@pytest.mark.parametrize(
    "other",
    [
        lambda: of(seed=1).value({}, items()),
        lambda: of(name="s2").value({}, items()),
        lambda: of().value({}, items(job=1)),
        lambda: of().value({}, items(before="A dog.")),
    ],
)
def test_seed_sample_and_text_so_far_each_change_the_numbers(other) -> None:
    same = sum(a == b for a, b in zip(other(), of().value({}, items()), strict=True))
    assert same < 120, "a fifth of 400 is equal by chance"


def test_without_values_there_is_nothing_to_draw() -> None:
    with pytest.raises(ValueError, match="no values to draw from"):
        of(values=[])
