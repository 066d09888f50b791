"""Whether a value model can guide a search: figures of its held-out values and of its training, and what is wrong with them.

The failure signatures are those of the papers' released code: values that are all alike, values that depend on the image only
(the sentence was cut off the input), a loss that grows because nothing anchors the bootstrap. Beyond them, V must order the
sentences of an image at a position better than chance, for that is all that a search asks of it: random numbers are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tasks.core.metrics import spearman
from tasks.core.value.ranking import HeldOut, Ranking, ranking_of

ENDS = 20  # steps at either end of training that the loss is compared over
SIGNIFICANT = 3.0  # standard errors
DIVERGED = 100.0  # times
# Values that differ this much less within an image than between images follow the image, not the text.
SAME = 0.01
SAME_RETURN = 1e-9  # returns that differ by rounding only have no order to follow
LEAST_IMAGES = 10  # with pairs to order; a random V orders the pairs of four images right in one of sixteen runs


class Limits(NamedTuple):
    """What is refused."""

    min_spread: float  # standard deviation of V; 0 allows everything
    min_spearman: float  # that the interval of the rank correlation must lie above; -1 allows everything


class Ends(NamedTuple):
    """The loss of the first and of the last steps: means and the standard error of their difference."""

    first: float
    last: float
    error: float


def facts_of(held: HeldOut, losses: Sequence[float]) -> dict[str, float]:
    """The figures that are reported; one that can't be measured is left out.

    `losses` are those of all steps. `rank_within` and `auc_within` are what the check reads (`tasks.core.value.ranking`), with
    their intervals; `spearman` is over all sentences together, for information. `within_image_spread` is the root mean variance
    of V over the sentences of one image.
    """
    ends, ranking = ends_of(losses), ranking_of(held)
    figures = {
        "rank_within": ranking.rank.value,
        "rank_within_low": ranking.rank.ci_low,
        "rank_within_high": ranking.rank.ci_high,
        "auc_within": ranking.auc.value,
        "auc_within_low": ranking.auc.ci_low,
        "auc_within_high": ranking.auc.ci_high,
        "pairs": ranking.pairs,
        "pair_images": ranking.images,
        "spearman": correlation(held),
        "spread": float(held.values.std()) if len(held.values) else 0.0,
        "within_image_spread": within_spread(held.values, held.images),
        "td_error": float(np.abs(held.targets - held.values).mean()) if len(held.values) else float("nan"),
        "held_out": len(held.values),
        "loss_first": ends.first,
        "loss_last": ends.last,
    }
    return {name: value for name, value in figures.items() if np.isfinite(value)}


def problem_of(held: HeldOut, losses: Sequence[float], trained_returns: np.ndarray, limits: Limits) -> str | None:
    """Why this V can't guide a search, and what to change; None if it can.

    Args:
        held: its values of sentences it did not learn from.
        losses: of all steps.
        trained_returns: Monte-Carlo returns of the sentences it learned from, on V's scale.
        limits: what is refused.
    """
    wrong = unusable(held)
    if wrong:
        return wrong
    spread = float(held.values.std()) if len(held.values) else 0.0
    if spread < limits.min_spread:
        return (
            f"on {len(held.values)} held-out sentences its spread is {spread:.2g} (at least {limits.min_spread:g}). "
            "Raise sample.images or value.epochs, change value.lr"
        )
    within, ends = within_spread(held.values, held.images), ends_of(losses)
    if limits.min_spread and within < max(limits.min_spread, SAME * spread):
        return (
            f"the sentences of one image get the same value: they differ by {within:.2g} there and by {spread:.2g} "
            "over all images, so V follows the image and not what is said. Look whether the sentences reach the model "
            "(a processor that cuts long inputs), raise value.epochs or value.lr, or read more: value.reads policy_states"
        )
    if diverged(losses, trained_returns) or grew(losses, trained_returns):
        return (
            f"its loss grew from {losses[0]:.3g} in the first step, {ends.first:.3g} in the first {ENDS}, to {ends.last:.3g}, "
            "more than one constant value would give. Lower value.lr; if V feeds on its own values, raise value.target_decay "
            "or take value.target mc"
        )
    return None if limits.min_spearman <= -1 else order_problem(ranking_of(held), limits.min_spearman)


def unusable(held: HeldOut) -> str | None:
    """Why there is no V, or nothing to judge it by, whatever the limits are; None if there is."""
    if not np.isfinite(held.values).all():
        return "its values are not finite. Lower value.lr"
    if not len(held.values):
        return "no held-out sentence has a reward. Raise sample.images or sample.val_share"
    if np.isnan(correlation(held)):
        same = "returns" if not np.ptp(held.returns) > SAME_RETURN else "values"
        return (
            f"the {same} of all {len(held.values)} held-out sentences are the same. Look at the rewards (scorer, label), or "
            "raise sample.images, sample.val_share or value.epochs"
        )
    return None


def order_problem(ranking: Ranking, least: float) -> str | None:
    """Why V does not surely order the sentences of an image at a position; None if it does.

    `least` is what the whole interval of the rank correlation must lie above; 0 is chance.
    """
    if ranking.images < LEAST_IMAGES:
        return (
            f"only {ranking.images} held-out images have different sentences at one position with different returns "
            f"(at least {LEAST_IMAGES}), so nothing tells V from random numbers. Raise sample.images or sample.val_share, or "
            "add rollout.temperatures"
        )
    rank, share = ranking.rank, ranking.auc
    if rank.ci_low > least:
        return None
    measured = (
        f"over {ranking.pairs} pairs of sentences at one position of one of {ranking.images} held-out images its rank "
        f"correlation with the Monte-Carlo return is {rank.value:.2f} ({rank.ci_low:.2f} to {rank.ci_high:.2f}; the lower "
        f"end must be above {least:g}), and it ranks the better one first in {share.value:.2f} of them "
        f"({share.ci_low:.2f} to {share.ci_high:.2f}; chance is 0.5)"
    )
    if rank.value <= least:
        return f"{measured}. Raise sample.images or value.epochs, change value.lr"
    # The interval's reach falls with the root of the number of images.
    times = ((rank.value - rank.ci_low) / (rank.value - least)) ** 2
    return (
        f"{measured}: too few to be sure. Raise sample.images or sample.val_share (about {max(times, 1.1):.1f} times as many "
        "held-out images would do if the correlation is what it seems), or make V better: value.epochs, value.lr"
    )


def correlation(held: HeldOut) -> float:
    """Rank correlation of V and the return; NaN where either never differs."""
    if not len(held.values) or not np.ptp(held.returns) > SAME_RETURN:
        return float("nan")
    return spearman(held.values, held.returns)


def within_spread(values: np.ndarray, images: np.ndarray) -> float:
    """Root of the mean, over images with two sentences or more, of the variance of their values; NaN if there is none."""
    by_image = [values[images == image] for image in np.unique(images)]
    variances = [of_image.var() for of_image in by_image if len(of_image) > 1]
    return float(np.sqrt(np.mean(variances))) if variances else float("nan")


def ends_of(losses: Sequence[float]) -> Ends:
    """Both ends of training, `ENDS` steps each, or half of it where it was shorter."""
    count = min(ENDS, len(losses) // 2)
    if not count:
        only = float(losses[0]) if len(losses) else float("nan")
        return Ends(only, only, float("nan"))
    first, last = np.array(losses[:count]), np.array(losses[-count:])
    error = np.sqrt((first.var(ddof=1) + last.var(ddof=1)) / count) if count > 1 else float("nan")
    return Ends(float(first.mean()), float(last.mean()), float(error))


def diverged(losses: Sequence[float], trained_returns: np.ndarray) -> bool:
    """Whether the loss ended far above its very first one and what a V of 0 would give; it may have grown in a single step."""
    if not len(losses) or not len(trained_returns):
        return False
    return ends_of(losses).last > DIVERGED * max(losses[0], float(np.mean(trained_returns**2)))


def grew(losses: Sequence[float], trained_returns: np.ndarray) -> bool:
    """Whether the loss ended significantly above where it began, and above the variance of the returns.

    A TD loss may well grow while V learns, for its targets begin as the bare rewards. But the errors of a right V are the parts
    that its return's error is made of, so their mean square is no more than the variance of the returns.
    """
    ends = ends_of(losses)
    if not np.isfinite(ends.error) or not len(trained_returns):
        return False
    least = max(ends.first, float(trained_returns.var()))
    return ends.last > least + SIGNIFICANT * ends.error
