"""Rewards against numbers worked out by hand, form by form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.reward.shaping import SHAPES, end_value_of, minimum_error, otsu_threshold, quantile_margin, shape_scores

SCORES = np.array([0.30, 0.20, 0.15, -0.10])  # above, at, below, negative; margin 0.2, alpha 2
BY_HAND = {
    "none": [0.30, 0.20, 0.15, -0.10],
    "margin": [0.30, 0.20, -0.10, -0.60],
    "published_equation": [0.30, 0.20, 0.05, 0.30],
    "zero_below": [0.30, 0.20, 0.0, 0.0],
    "floor": [0.30, 0.20, 0.20, 0.20],
    "continuous": [0.30, 0.20, 0.05, -0.70],
    "centred": [0.10, 0.0, -0.05, -0.30],
}


def test_every_form_has_a_case_worked_out_by_hand() -> None:
    assert BY_HAND.keys() == SHAPES.keys()


@pytest.mark.parametrize("shaping", BY_HAND)
def test_shaped_scores_are_those_worked_out_by_hand(shaping: str) -> None:
    assert shape_scores(SCORES, shaping=shaping, margin=0.2, alpha=2.0) == pytest.approx(BY_HAND[shaping])


@pytest.mark.parametrize("margin", [0.2, 0.0, -0.3])
@pytest.mark.parametrize("shaping", SHAPES)
def test_the_end_is_worth_no_more_than_a_score_at_the_margin(shaping: str, margin: float) -> None:
    (at_margin,) = shape_scores(np.array([margin]), shaping=shaping, margin=margin, alpha=1.0)
    assert end_value_of(shaping, margin) <= at_margin
    if shaping in ("margin", "none", "continuous", "centred"):  # the others don't rank what is below the margin lower
        (below,) = shape_scores(np.array([margin - 1e-6]), shaping=shaping, margin=margin, alpha=1.0)
        assert below < end_value_of(shaping, margin)


@pytest.mark.parametrize(
    ("shaping", "margin", "worth"),
    [("margin", 0.2, 0.0), ("margin", -0.3, -0.3), ("centred", 0.2, 0.0), ("centred", -0.3, 0.0), ("none", 0.2, 0.2),
     ("floor", 0.2, 0.2), ("zero_below", 0.2, 0.2), ("published_equation", 0.2, 0.2), ("continuous", 0.2, 0.2)],
)  # fmt: skip
def test_the_end_is_worth_0_where_0_parts_good_from_bad_else_the_margin(
    shaping: str, margin: float, worth: float
) -> None:
    assert end_value_of(shaping, margin) == worth


def test_the_published_equation_rewards_what_is_far_below_the_margin() -> None:
    worst, near = shape_scores(np.array([-0.5, 0.19]), shaping="published_equation", margin=0.2, alpha=1.0)
    assert worst > near
    worst, near = shape_scores(np.array([-0.5, 0.19]), shaping="margin", margin=0.2, alpha=1.0)
    assert worst < near


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=30), st.floats(-1, 1), st.floats(0, 5))
def test_the_continuous_form_keeps_the_order_of_scores(scores: list[float], margin: float, alpha: float) -> None:
    shaped = shape_scores(np.sort(scores), shaping="continuous", margin=margin, alpha=alpha)
    assert (np.diff(shaped) >= -1e-12).all()


def test_below_a_negative_margin_a_reward_falls_by_the_margin_s_size() -> None:
    scores = np.array([0.5, -1.0, -1.5])  # at margin -1: kept, kept, 0.5 below
    assert shape_scores(scores, shaping="margin", margin=-1.0, alpha=1.0) == pytest.approx([0.5, -1.0, -2.5])
    assert shape_scores(scores, shaping="zero_below", margin=-1.0, alpha=1.0) == pytest.approx([0.5, -1.0, -2.0])


@given(
    st.lists(st.floats(-3, 3), min_size=2, max_size=30),
    st.floats(-3, 3),
    st.floats(0, 5),
    st.sampled_from(["none", "margin", "zero_below", "floor", "continuous", "centred"]),
)
def test_a_lower_score_never_earns_more(scores: list[float], margin: float, alpha: float, shaping: str) -> None:
    shaped = shape_scores(np.sort(scores), shaping=shaping, margin=margin, alpha=alpha)
    assert (np.diff(shaped) >= -1e-12).all()


def test_scores_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 1\): want \[N\]"):
        shape_scores(np.zeros((2, 1)), shaping="none", margin=0, alpha=0)


def test_otsu_parts_two_clusters_half_way_between_their_edges() -> None:
    rng = np.random.default_rng(0)
    low, high = rng.normal(-0.2, 0.05, 300), rng.normal(0.5, 0.05, 100)
    assert otsu_threshold([*low, *high]) == pytest.approx((low.max() + high.min()) / 2)


def test_otsu_finds_the_cut_of_brute_force() -> None:
    values = np.sort(np.random.default_rng(1).normal(size=40))

    def between(cut: float) -> float:
        low, high = values[values < cut], values[values >= cut]
        return len(low) * len(high) * (low.mean() - high.mean()) ** 2

    cuts = (values[1:] + values[:-1]) / 2
    assert otsu_threshold(values) == pytest.approx(max(cuts, key=between))


def test_otsu_never_cuts_between_equal_scores() -> None:
    assert otsu_threshold([0.1, 0.1, 0.1, 0.4]) == pytest.approx(0.25)


@pytest.mark.parametrize("scores", [[], [0.3], [0.3, 0.3, 0.3]])
def test_otsu_without_spread_says_what_to_use(scores: list[float]) -> None:
    with pytest.raises(ValueError, match=r"label\.tau\.kind=fixed"):
        otsu_threshold(scores)


@pytest.mark.parametrize(("q", "margin"), [(0.0, 1.0), (0.5, 2.5), (0.17, 1.51), (1.0, 4.0)])
def test_the_quantile_interpolates_between_neighbours(q: float, margin: float) -> None:
    assert quantile_margin([4.0, 1.0, 3.0, 2.0], q) == pytest.approx(margin)


def test_no_scores_have_no_margin() -> None:
    with pytest.raises(ValueError, match="at least one scored sentence"):
        quantile_margin([], 0.5)


def test_the_least_error_is_between_groups_of_very_different_sizes_where_otsu_parts_the_larger() -> None:
    rng = np.random.default_rng(0)
    absent, there = rng.normal(-0.12, 0.12, 2000), rng.normal(0.45, 0.05, 60)
    parted = minimum_error([*absent, *there])
    assert np.mean(there > parted.threshold) > 0.95 and np.mean(absent > parted.threshold) < 0.005
    assert (parted.low, parted.high) == (pytest.approx(-0.12, abs=0.01), pytest.approx(0.45, abs=0.02))
    assert np.mean(absent > otsu_threshold([*absent, *there])) > 0.2


def test_the_least_error_is_that_of_brute_force() -> None:
    values = np.sort(np.random.default_rng(2).normal([0.0] * 40 + [3.0] * 20))

    def error(cut: float) -> float:
        groups = values[values < cut], values[values >= cut]
        return sum(len(group) / 60 * (np.log(group.std()) - np.log(len(group) / 60)) for group in groups)

    cuts = ((values[1:] + values[:-1]) / 2)[9:50]
    assert minimum_error(values + 1000).threshold - 1000 == pytest.approx(min(cuts, key=error))


@pytest.mark.parametrize("scores", [[], [0.3] * 100, [0.1, 0.2] * 5, [0.1] * 50 + [0.2] * 50])
def test_what_has_no_two_groups_has_no_least_error(scores: list[float]) -> None:
    with pytest.raises(ValueError, match="no two groups of at least 10"):
        minimum_error(scores)
