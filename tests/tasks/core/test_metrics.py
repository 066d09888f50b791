"""Estimates and their uncertainty, against brute force."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.metrics import (
    Ratio,
    auc,
    bootstrap_draws,
    estimate,
    grouped_auc,
    paired_difference,
    ranks,
    spearman,
)

integers = st.lists(st.integers(0, 5), min_size=1, max_size=12)


def mean_of(values: np.ndarray) -> Ratio:
    return Ratio(values.astype(float), np.ones(len(values)))


@given(integers, integers)
def test_auc_is_the_share_of_pairs_in_order(positive: list[int], negative: list[int]) -> None:
    wins = [1.0 if p > n else 0.5 if p == n else 0.0 for p, n in itertools.product(positive, negative)]
    assert auc(np.array(positive), np.array(negative)) == pytest.approx(np.mean(wins))


@given(integers)
def test_ranks_of_ties_are_their_mean(values: list[int]) -> None:
    expected = [np.mean([i for i, other in enumerate(sorted(values)) if other == value]) for value in values]
    assert ranks(np.array(values)) == pytest.approx(expected)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=12))
def test_spearman_is_pearson_of_ranks(pairs: list[tuple[int, int]]) -> None:
    a, b = np.array(pairs).T
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert math.isnan(spearman(a, b))
    else:
        assert spearman(a, b) == pytest.approx(np.corrcoef(ranks(a), ranks(b))[0, 1])


def test_spearman_follows_order_not_size() -> None:
    a = np.arange(10)
    assert spearman(a, np.exp(a)) == pytest.approx(1)
    assert spearman(a, -(a**3)) == pytest.approx(-1)


def test_spearman_of_different_lengths_is_refused() -> None:
    with pytest.raises(ValueError, match=r"want two of \[N\]"):
        spearman(np.zeros(3), np.zeros(4))


def test_one_sided_groups_have_no_auc() -> None:
    mean, each = grouped_auc(
        {
            "right": (np.array([2.0, 3.0]), np.array([1.0])),
            "half": (np.array([1.0]), np.array([1.0])),
            "only true": (np.array([1.0]), np.array([])),
        }
    )
    assert (mean, each) == (0.75, [1.0, 0.5])
    assert math.isnan(grouped_auc({})[0])
    assert math.isnan(auc(np.array([]), np.array([1.0])))


def test_a_ratio_is_a_ratio_of_sums() -> None:
    ratio = Ratio(np.array([1.0, 0.0]), np.array([1.0, 3.0]))
    assert ratio.value() == 0.25  # the mean of per-item ratios is 0.5
    draws = np.array([[0, 0], [0, 1], [1, 1]])
    item = estimate(ratio, draws=draws, confidence=0.95)
    assert item.stderr == pytest.approx(np.std([1.0, 0.25, 0.0], ddof=1))


def test_nothing_counted_is_zero_not_an_error() -> None:
    ratio = Ratio(np.zeros(3), np.zeros(3))
    assert ratio.value() == 0
    assert estimate(ratio, draws=bootstrap_draws(3, 100, 0))[:4] == (0, 0, 0, 0)


@pytest.mark.parametrize("n", [0, 1])
def test_below_two_items_the_spread_is_unknown(n: int) -> None:
    ratio, draws = mean_of(np.ones(n)), np.zeros((100, n), dtype=int)
    item, diff = estimate(ratio, draws=draws), paired_difference(ratio, ratio, draws=draws)
    assert item.n == diff.n == n
    assert all(math.isnan(x) for x in (item.stderr, item.ci_low, item.ci_high, diff.ci_low, diff.ci_high, diff.p))


def test_intervals_cover_the_truth_about_as_often_as_their_confidence() -> None:
    rng, covered = np.random.default_rng(0), 0
    draws = bootstrap_draws(60, 400, 1)
    for _ in range(300):
        before = rng.binomial(4, 0.3, 60).astype(float)
        after = rng.binomial(before.astype(int), 0.6).astype(float)  # depends on before: paired
        diff = paired_difference(mean_of(after), mean_of(before), draws=draws)
        covered += diff.ci_low <= 4 * 0.3 * (0.6 - 1) <= diff.ci_high
    assert 0.90 <= covered / 300 <= 0.98


def test_pairing_narrows_the_interval() -> None:
    rng = np.random.default_rng(0)
    item = rng.normal(0, 5, 200)
    a, b = mean_of(item + rng.normal(0.5, 0.5, 200)), mean_of(item)
    draws, others = bootstrap_draws(200, 1000, 0), bootstrap_draws(200, 1000, 1)
    paired = paired_difference(a, b, draws=draws)
    assert paired.p < 0.01
    loose = np.quantile(a.top[draws].mean(1) - b.top[others].mean(1), [0.025, 0.975])
    assert paired.ci_high - paired.ci_low < 0.2 * (loose[1] - loose[0])


def test_a_subject_does_not_differ_from_itself() -> None:
    ratio = mean_of(np.arange(20))
    assert paired_difference(ratio, ratio, draws=bootstrap_draws(20, 200, 0)) == (0, 0, 0, 1, 20, 0)


def test_p_is_never_zero() -> None:
    diff = paired_difference(mean_of(np.ones(9)), mean_of(np.zeros(9)), draws=bootstrap_draws(9, 199, 0))
    assert diff.p == pytest.approx(2 / 200)


def test_a_paired_difference_needs_the_same_items() -> None:
    with pytest.raises(ValueError, match="3 and 4 items"):
        paired_difference(mean_of(np.ones(3)), mean_of(np.ones(4)), draws=bootstrap_draws(3, 10, 0))
