"""P-values and intervals by hand, Holm's correction by hand, and how often intervals over seeds cover the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tasks.core.analysis.certainty import holm, of_one_seed, over_seeds
from tasks.core.metrics import Ratio, bootstrap_draws, paired_difference


def test_holm_by_hand() -> None:
    # Sorted .005, .01, .03, .04 times 4, 3, 2, 1: .02, .03, .06, and .04 is raised to the .06 before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0] and holm([]) == []


def test_what_is_unknown_is_none_of_the_family() -> None:
    adjusted = holm([0.02, math.nan, 0.01])
    assert adjusted[0] == pytest.approx(0.02) and math.isnan(adjusted[1]) and adjusted[2] == pytest.approx(0.02)


def test_one_seed_is_students_t() -> None:
    assert of_one_seed(2.262157, 1.0, 10) == pytest.approx(0.05, abs=1e-6)  # the table's value for 9 degrees
    assert of_one_seed(-2.262157, 1.0, 10) == pytest.approx(0.05, abs=1e-6)
    assert math.isnan(of_one_seed(1.0, 1.0, 1)) and math.isnan(of_one_seed(1.0, math.nan, 9))


def test_without_any_spread_it_is_a_sign_test() -> None:
    assert (of_one_seed(0.0, 0.0, 9), of_one_seed(0.5, 0.0, 5)) == (1.0, 0.0625)


def test_over_seeds_by_hand() -> None:
    effect = over_seeds([1.0, 2.0, 3.0], [0.1, 0.1, 0.1])
    # Standard deviation 1, so 1 / sqrt(3) of the mean, times 4.302653; t = 3.4641 with 2 degrees: p = .0742.
    assert effect.value == 2.0 and effect.stderr == pytest.approx(3**-0.5)
    assert (effect.low, effect.high) == pytest.approx((2 - 2.484138, 2 + 2.484138), abs=1e-5)
    assert effect.p == pytest.approx(0.0742, abs=1e-4)


def test_seeds_that_agree_by_luck_are_no_surer_than_their_images() -> None:
    lucky = over_seeds([2.0, 2.0, 2.0], [0.3, 0.4, math.nan])
    assert lucky.stderr == pytest.approx(((0.09 + 0.16) / 2 / 3) ** 0.5)
    assert over_seeds([2.0, 2.0], [math.nan, math.nan]).p == 0.5  # two of one side


def test_a_single_seed_says_nothing_of_others() -> None:
    effect = over_seeds([1.0], [0.1])
    assert effect.value == 1.0 and effect.seeds == 1 and all(map(math.isnan, effect[1:5]))
    with pytest.raises(ValueError, match="1 values and 2 standard errors"):
        over_seeds([1.0], [0.1, 0.2])


@pytest.mark.parametrize("between", [0.0, 0.5, 1.0, 4.0])
def test_intervals_over_three_seeds_cover_the_truth_at_least_as_often_as_they_say(between: float) -> None:
    rng, covered, trials = np.random.default_rng(0), 0, 3000
    for values in rng.normal(0.7, math.hypot(1.0, between), (trials, 3)):
        effect = over_seeds(values.tolist(), [1.0, 1.0, 1.0])
        covered += effect.low <= 0.7 <= effect.high
        assert (effect.p < 0.05) == (not effect.low <= 0 <= effect.high)
    assert covered / trials >= 0.94


def test_p_of_one_seed_is_small_about_as_often_as_it_says() -> None:
    rng, small, trials = np.random.default_rng(0), 0, 400
    draws = bootstrap_draws(60, 300, 1)
    for _ in range(trials):
        mentions = rng.integers(1, 5, 60).astype(float)
        a, b = (Ratio(rng.binomial(mentions.astype(int), 0.3).astype(float), mentions) for _ in range(2))
        difference = paired_difference(a, b, draws=draws)
        small += of_one_seed(difference.diff, difference.stderr, difference.n) < 0.05
    assert 0.025 <= small / trials <= 0.075
