"""Of every prompt the best answer against the worst, and a reason for every prompt that gives no pair."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.train.preferences import Pair, WorthyAnswer, best_against_worst


def answers(sample: str, *ranked: tuple[str, float]) -> list[WorthyAnswer]:
    return [WorthyAnswer(sample, f"{sample}-{i}", text, worth) for i, (text, worth) in enumerate(ranked)]


def test_the_best_is_chosen_and_the_worst_rejected_within_each_prompt() -> None:
    result = best_against_worst(
        [*answers("b", ("A dog.", 0.1), ("A cat.", 0.4), ("A cow.", -0.2)), *answers("a", ("One.", 9), ("Two.", 8))]
    )
    pairs = [(pair.chosen.sample_id, pair.chosen.text, pair.rejected.text, pair.gap) for pair in result.pairs]
    assert pairs == [("a", "One.", "Two.", 1), ("b", "A cat.", "A cow.", pytest.approx(0.6))]
    assert not result.skipped


@pytest.mark.parametrize(
    ("ranked", "why"),
    [
        ([("A dog.", 0.1)], "one_answer"),
        ([("A dog.", 0.1), ("A dog.", 0.1)], "same_text"),
        ([("A dog.", 0.1), ("A dog.", 0.3)], "same_text"),
        ([("A dog.", 0.1), ("A cat.", 0.1)], "tie"),
        ([("A dog.", 0.1), ("A cat.", 0.14)], "small_gap"),
    ],
)
def test_a_prompt_without_a_pair_says_why(ranked: list[tuple[str, float]], why: str) -> None:
    result = best_against_worst(answers("a", *ranked), min_gap=0.05)
    assert result.pairs == []
    assert result.skipped == {why: 1}


def test_a_gap_as_large_as_the_bound_is_enough() -> None:
    assert len(best_against_worst(answers("a", ("A dog.", 0.25), ("A cat.", 0.5)), min_gap=0.25).pairs) == 1


def test_of_equally_good_answers_the_first_counts() -> None:
    of = answers("a", ("A.", 1.0), ("B.", 1.0), ("C.", 0.0), ("D.", 0.0))
    for order in (of, of[::-1]):
        assert best_against_worst(order).pairs == [Pair(of[0], of[2])]


def test_a_worth_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match=r"answer a-1 is worth nan: want a finite number"):
        best_against_worst(answers("a", ("A.", 1.0), ("B.", float("nan"))))


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["A.", "B.", "C."]), st.integers(-3, 3)), max_size=20),
    st.integers(0, 4),
    st.randoms(use_true_random=False),
)
def test_every_prompt_is_accounted_for_in_any_order(
    ranked: list[tuple[str, str, int]], min_gap: int, random: Random
) -> None:
    of = [WorthyAnswer(sample, f"{i:02}", text, worth) for i, (sample, text, worth) in enumerate(ranked)]
    result = best_against_worst(of, min_gap=min_gap)
    assert len(result.pairs) + sum(result.skipped.values()) == len({item.sample_id for item in of})
    for pair in result.pairs:
        worths = [item.worth for item in of if item.sample_id == pair.chosen.sample_id]
        assert (pair.chosen.worth, pair.rejected.worth) == (max(worths), min(worths))
        assert pair.chosen.sample_id == pair.rejected.sample_id
        assert pair.gap >= max(min_gap, 1)
    random.shuffle(of)
    assert best_against_worst(of, min_gap=min_gap) == result
