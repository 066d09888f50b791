"""Only sentences of one image at one position are compared: figures by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tasks.core.metrics import spearman
from tasks.core.value.ranking import HeldOut, ranking_of


def rows(*lines: tuple[str, int, str, float, float]) -> HeldOut:
    """(image, step, state, value, return) each."""
    images, steps, states, values, returns = (np.array(column) for column in zip(*lines, strict=True))
    return HeldOut(images, steps, states, values, values, returns)


def test_one_group_is_spearmans_correlation_and_the_share_of_ordered_pairs() -> None:
    values, returns = [0.1, 0.5, 0.3, 0.9], [1.0, 2.0, 3.0, 4.0]
    ranking = ranking_of(rows(*(("a", 0, str(i), v, g) for i, (v, g) in enumerate(zip(values, returns, strict=True)))))
    assert ranking.rank.value == pytest.approx(spearman(np.array(values), np.array(returns)))
    assert ranking.auc.value == 5 / 6 and ranking.pairs == 6 and ranking.images == 1
    assert math.isnan(ranking.rank.ci_low), "one image has no spread"


def test_images_and_positions_are_not_compared_with_each_other() -> None:
    """V follows image and position exactly, and ranks the wrong way within them."""
    ranking = ranking_of(
        rows(
            ("a", 0, "p", 1.0, 1.1), ("a", 0, "q", 1.1, 1.0), ("a", 1, "r", 5.0, 5.1), ("a", 1, "s", 5.1, 5.0),
            ("b", 0, "t", 8.0, 8.1), ("b", 0, "u", 8.1, 8.0), ("c", 0, "v", 9.0, 9.0),
        )
    )  # fmt: skip
    assert (ranking.rank.value, ranking.auc.value, ranking.pairs, ranking.images) == (-1.0, 0.0, 3, 2)


def test_equal_states_are_one_sentence_worth_the_mean_of_their_returns() -> None:
    """Returns 1 and 5 of the same sentence: V can't tell them apart, and the other, worth 2, is below their mean."""
    ranking = ranking_of(rows(("a", 0, "p", 0.7, 1.0), ("a", 0, "p", 0.7, 5.0), ("a", 0, "q", 0.2, 2.0)))
    assert ranking.pairs == 1 and ranking.auc.value == 1.0


def test_equal_values_count_half_and_equal_returns_are_no_pair() -> None:
    ranking = ranking_of(
        rows(("a", 0, "p", 0.5, 1.0), ("a", 0, "q", 0.5, 2.0), ("b", 0, "r", 0.1, 3.0), ("b", 0, "s", 0.9, 3.0 + 1e-12))
    )
    assert ranking.auc.value == 0.5 and ranking.rank.value == 0.0
    assert ranking.pairs == 1 and ranking.images == 1
    assert math.isnan(ranking_of(rows(("a", 0, "p", 0.5, 1.0))).auc.value)


def test_a_large_group_counts_by_its_pairs() -> None:
    """Ten sentences in the wrong order and ten groups of two in the right one: 45 pairs against 10."""
    wrong = [("a", 0, str(i), float(i), float(-i)) for i in range(10)]
    right = [(f"b{i}", 0, str(k), float(k), float(k)) for i in range(10) for k in range(2)]
    ranking = ranking_of(rows(*wrong, *right))
    assert ranking.auc.value == 10 / 55
    # The sums of squared ranks divided by the sizes are (n^2 - 1) / 12: 8.25 and ten times 0.25.
    assert ranking.rank.value == pytest.approx((2.5 - 8.25) / (2.5 + 8.25))


def test_intervals_of_few_images_cover_the_truth_as_often_as_they_say() -> None:
    """V of random numbers: 95 % of the intervals hold 0 and one half, with ten images of dependent sentences."""
    draw, covered, n = np.random.default_rng(0), np.zeros(2), 200
    for _ in range(n):
        images, steps = np.arange(10).repeat(12), np.tile(np.arange(3), 40)
        of_answer = draw.normal(0, 1, 40).repeat(3)  # a V may like a whole answer
        values, returns = (
            of_answer + draw.normal(0, 0.5, 120),
            draw.normal(0, 1, 40).repeat(3) + draw.normal(0, 0.5, 120),
        )
        ranking = ranking_of(HeldOut(images, steps, np.arange(120), values, values, returns))
        covered += [ranking.rank.ci_low <= 0 <= ranking.rank.ci_high, ranking.auc.ci_low <= 0.5 <= ranking.auc.ci_high]
    assert (covered / n >= 0.92).all() and (covered / n < 1).all()
