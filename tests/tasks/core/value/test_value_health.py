"""What can't guide a search is refused with what to change; what can is left alone."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.value_chain import ANSWERS, CIRCLE, learned
from tasks.core.metrics import spearman
from tasks.core.value.health import Limits, ends_of, facts_of, grew, problem_of, within_spread
from tasks.core.value.ranking import HeldOut

LIMITS = Limits(min_spread=1e-4, min_spearman=0.0)
GENERATOR = np.random.default_rng(0)
IMAGES = np.repeat(np.arange(12), 20)
STEPS = np.tile(np.arange(5), 48)
STATES = np.array([f"state {row}" for row in range(len(IMAGES))])
RETURNS = GENERATOR.normal(0, 0.3, len(IMAGES))
FALLING = list(np.linspace(0.5, 0.05, 60) + GENERATOR.normal(0, 0.01, 60))


def held(values: np.ndarray, returns: np.ndarray = RETURNS) -> HeldOut:
    return HeldOut(IMAGES, STEPS, STATES, values, values + 0.1, returns)


def test_values_that_follow_the_returns_are_healthy() -> None:
    good = held(0.5 * RETURNS + GENERATOR.normal(0, 0.1, len(IMAGES)))
    assert problem_of(good, FALLING, RETURNS, LIMITS) is None
    facts = facts_of(good, FALLING)
    assert facts["td_error"] == pytest.approx(0.1)
    assert facts["spearman"] > 0.5 and facts["held_out"] == len(IMAGES)
    assert 0 < facts["rank_within_low"] < facts["rank_within"] < facts["rank_within_high"] <= 1
    assert 0.5 < facts["auc_within_low"] < facts["auc_within"] < facts["auc_within_high"] <= 1
    assert facts["pairs"] == 12 * 5 * 6 and facts["pair_images"] == 12
    assert 0 < facts["within_image_spread"] <= facts["spread"]
    assert facts["loss_first"] == pytest.approx(np.mean(FALLING[:20]))
    assert facts["loss_last"] == pytest.approx(np.mean(FALLING[-20:]))


def test_values_that_are_all_alike_are_refused() -> None:
    problem = problem_of(held(RETURNS * 1e-6), FALLING, RETURNS, LIMITS)
    assert problem is not None and "its spread is" in problem and "value.lr" in problem


@pytest.mark.parametrize("limits", [LIMITS, Limits(0.0, -1.0)])
def test_without_anything_to_rank_no_limit_lets_v_pass(limits: Limits) -> None:
    for values, returns, needs in (
        (np.full(len(IMAGES), 0.7), RETURNS, "the values of all 240 held-out sentences are the same"),
        (RETURNS, np.full(len(IMAGES), 0.7), "the returns of all 240 held-out sentences are the same"),
    ):
        assert needs in str(problem_of(held(values, returns), FALLING, RETURNS, limits))
    nothing = HeldOut(*(column[:0] for column in held(RETURNS)))
    assert "no held-out sentence" in str(problem_of(nothing, FALLING, RETURNS, limits))


def test_values_that_rank_the_wrong_way_are_refused() -> None:
    problem = problem_of(held(-RETURNS), FALLING, RETURNS, LIMITS)
    assert problem is not None
    assert "return is -1.00 (-1.00 to -1.00; the lower end must be above 0)" in problem
    assert "ranks the better one first in 0.00 of them" in problem
    assert problem_of(held(-RETURNS), FALLING, RETURNS, Limits(1e-4, -1.0)) is None, "-1 allows everything"


def made(images: int, quality: float, seed: int) -> HeldOut:
    """Four answers of three sentences an image; V is `quality` times the return plus noise, and follows images very well."""
    draw = np.random.default_rng(seed)
    rows = np.arange(images * 12)
    of_image = draw.normal(0, 1, images).repeat(12)
    returns = of_image + draw.normal(0, 0.3, len(rows))
    values = of_image + quality * (returns - of_image) + draw.normal(0, 0.3, len(rows))
    return HeldOut(rows // 12, rows % 3, rows.astype(str), values, values, returns)


@pytest.mark.parametrize("images", [5, 12, 30, 100])
def test_random_values_are_refused_however_many_images_and_however_well_v_ranks_images(images: int) -> None:
    refusals = [problem_of(made(images, 0.0, seed), FALLING, RETURNS, LIMITS) for seed in range(100)]
    assert spearman(made(images, 0.0, 0).values, made(images, 0.0, 0).returns) > 0.5
    # An interval of 95 % lies above chance in 2.5 % of the draws.
    assert sum(refusal is None for refusal in refusals) <= 5
    if images < 10:
        assert all("sample.val_share" in str(refusal) for refusal in refusals)


@pytest.mark.parametrize(("images", "quality"), [(12, 1.0), (30, 0.6), (300, 0.2)])
def test_values_that_rank_within_an_image_are_accepted(images: int, quality: float) -> None:
    assert problem_of(made(images, quality, 0), FALLING, RETURNS, LIMITS) is None


def test_too_few_images_are_named_as_the_reason_with_what_to_raise() -> None:
    problem = problem_of(made(9, 1.0, 0), FALLING, RETURNS, LIMITS)
    assert problem is not None and "only 9 held-out images" in problem and "(at least 10)" in problem
    for remedy in ("sample.images", "sample.val_share", "rollout.temperatures"):
        assert remedy in problem
    weak = [str(problem_of(made(12, 0.3, seed), FALLING, RETURNS, LIMITS)) for seed in range(50)]
    unsure = next(problem for problem in weak if "too few to be sure" in problem)
    assert "times as many held-out images" in unsure


def test_values_of_the_image_alone_are_refused() -> None:
    """A processor that cuts the sentence off: V ranks images, and every candidate of a search is worth the same."""
    of_image = np.array([RETURNS[image == IMAGES].mean() for image in range(12)])[IMAGES]
    noisy = of_image + GENERATOR.normal(0, 1e-7, len(IMAGES))
    returns = RETURNS + 2 * of_image
    problem = problem_of(held(noisy, returns), FALLING, returns, LIMITS)
    assert problem is not None and "the sentences of one image get the same value" in problem
    assert problem_of(held(noisy, returns), FALLING, returns, Limits(0.0, -1.0)) is None, "0 allows everything"
    assert problem_of(held(noisy + 0.1 * RETURNS, returns), FALLING, returns, LIMITS) is None


def test_images_with_one_sentence_do_not_count_for_what_a_search_compares() -> None:
    assert np.isnan(within_spread(np.array([0.1, 0.9]), np.array([0, 1])))
    assert within_spread(np.array([0.0, 2.0, 5.0]), np.array([0, 0, 1])) == 1.0
    one_each = held(RETURNS)._replace(images=np.arange(len(IMAGES)))
    assert "only 0 held-out images" in str(problem_of(one_each, FALLING, RETURNS, LIMITS))
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
