"""What can't guide a search is refused with what to change; what can is left alone."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.value_chain import ANSWERS, CIRCLE, learned
from tasks.core.value.health import HeldOut, Limits, ends_of, facts_of, grew, problem_of, within_spread

LIMITS = Limits(min_spread=1e-4, min_spearman=0.05)
GENERATOR = np.random.default_rng(0)
IMAGES = np.repeat(np.arange(10), 20)
RETURNS = GENERATOR.normal(0, 0.3, len(IMAGES))
FALLING = list(np.linspace(0.5, 0.05, 60) + GENERATOR.normal(0, 0.01, 60))


def held(values: np.ndarray, returns: np.ndarray = RETURNS) -> HeldOut:
    return HeldOut(IMAGES, values, values + 0.1, returns)


def test_values_that_follow_the_returns_are_healthy() -> None:
    good = held(0.5 * RETURNS + GENERATOR.normal(0, 0.1, len(IMAGES)))
    assert problem_of(good, FALLING, RETURNS, LIMITS) is None
    facts = facts_of(good, FALLING)
    assert facts["td_error"] == pytest.approx(0.1)
    assert facts["spearman"] > 0.5 and facts["held_out"] == len(IMAGES)
    assert 0 < facts["within_image_spread"] <= facts["spread"]
    assert facts["loss_first"] == pytest.approx(np.mean(FALLING[:20]))
    assert facts["loss_last"] == pytest.approx(np.mean(FALLING[-20:]))


@pytest.mark.parametrize("values", [np.full(len(IMAGES), 0.7), RETURNS * 1e-6])
def test_values_that_are_all_alike_are_refused(values: np.ndarray) -> None:
    problem = problem_of(held(values), FALLING, RETURNS, LIMITS)
    assert problem is not None and "its spread is" in problem and "value.lr" in problem


def test_values_that_rank_nothing_are_refused_if_that_is_sure() -> None:
    problem = problem_of(held(-RETURNS), FALLING, RETURNS, LIMITS)
    assert problem is not None and "rank correlation with the Monte-Carlo return -1.000" in problem
    subset = HeldOut(*(item[:8] for item in held(np.roll(RETURNS, 3))))
    assert problem_of(subset, FALLING, RETURNS, LIMITS) is None


def test_values_of_the_image_alone_are_refused() -> None:
    """A processor that cuts the sentence off: V ranks images, and every candidate of a search is worth the same."""
    of_image = np.array([RETURNS[image == IMAGES].mean() for image in range(10)])[IMAGES]
    noisy = of_image + GENERATOR.normal(0, 1e-7, len(IMAGES))
    returns = RETURNS + 2 * of_image
    problem = problem_of(held(noisy, returns), FALLING, returns, LIMITS)
    assert problem is not None and "the sentences of one image get the same value" in problem
    assert problem_of(held(noisy, returns), FALLING, returns, Limits(0.0, -1.0)) is None, "0 allows everything"
    assert problem_of(held(noisy + 0.1 * RETURNS, returns), FALLING, returns, LIMITS) is None


def test_images_with_one_sentence_do_not_count_for_what_a_search_compares() -> None:
    assert np.isnan(within_spread(np.array([0.1, 0.9]), np.array([0, 1])))
    assert within_spread(np.array([0.0, 2.0, 5.0]), np.array([0, 0, 1])) == 1.0
    one_each = HeldOut(np.arange(len(IMAGES)), RETURNS, RETURNS, RETURNS)
    assert problem_of(one_each, FALLING, RETURNS, LIMITS) is None
    assert "within_image_spread" not in facts_of(one_each, FALLING)


def test_a_loss_that_grows_beyond_a_constant_s_is_refused_and_one_that_grows_within_is_not() -> None:
    good = held(RETURNS)
    growing = list(np.linspace(0.05, 5, 100))
    problem = problem_of(good, growing, RETURNS, LIMITS)
    assert problem is not None and "0.525 in the first 20, to 4.53" in problem
    for remedy in ("value.lr", "value.target_decay", "value.target mc"):
        assert remedy in problem
    assert problem_of(good, growing, 3 * RETURNS / RETURNS.std(), LIMITS) is None
    assert problem_of(good, [0.2, 0.9], RETURNS, LIMITS) is None, "two steps are no trend"
    assert not grew(list(GENERATOR.normal(0.3, 0.1, 100)), RETURNS)
    assert not grew(growing, np.zeros(0))


def test_a_loss_that_burst_in_one_step_and_falls_since_is_refused() -> None:
    burst = [0.1, *np.linspace(9000, 4000, 99)]
    problem = problem_of(held(RETURNS), burst, RETURNS, LIMITS)
    assert problem is not None and "its loss grew from 0.1 in the first step" in problem
    late = [900.0, *np.linspace(900, 400, 99)]  # a start far from the returns, not at its end yet
    assert problem_of(held(RETURNS), late, RETURNS, LIMITS) is None


def test_values_that_are_not_finite_are_refused() -> None:
    values = RETURNS.copy()
    values[3] = np.inf
    problem = problem_of(held(values), FALLING, RETURNS, LIMITS)
    assert problem is not None and "not finite" in problem


def test_short_trainings_have_ends_too() -> None:
    assert ends_of([3.0, 1.0])[:2] == (3.0, 1.0)
    assert ends_of([2.0])[:2] == (2.0, 2.0)
    assert np.isnan(ends_of([])[0])
    assert ends_of([4.0, 2.0, 9.0, 1.0, 3.0])[:2] == (3.0, 2.0)


def test_a_right_fit_of_a_chain_is_never_reported_as_growing() -> None:
    """A sum's TD loss grows with its targets, for they begin as the bare rewards."""
    for chain, mode in ((ANSWERS, "zero_terminal"), (ANSWERS, "mean_to_go"), (CIRCLE, "bootstrap_forever")):
        for method in ("td0", "td_lambda", "mc") if chain is ANSWERS else ("td0", "published"):
            curve = learned(chain, mode, method, epochs=60, batch_size=8)
            assert not grew(curve.losses, np.array(curve.returns)), (mode, method)
