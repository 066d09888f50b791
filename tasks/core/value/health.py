"""Whether a value model can guide a search: figures of its held-out values and of its training, and what is wrong with them.

The failure signatures are those of the papers' released code: values that are all alike, values that depend on the image only
(the sentence was cut off the input), a loss that grows because nothing anchors the bootstrap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tasks.core.metrics import spearman

ENDS = 20  # steps at either end of training that the loss is compared over
SIGNIFICANT = 3.0  # standard errors
DIVERGED = 100.0  # times
# Values that differ this much less within an image than between images follow the image, not the text.
SAME = 0.01


class Limits(NamedTuple):
    """What is refused."""

    min_spread: float  # standard deviation of V; 0 allows everything
    min_spearman: float  # rank correlation with the return; -1 allows everything


class HeldOut(NamedTuple):
    """HeldOut-out sentences, [N] each."""

    images: np.ndarray  # int, of which image
    values: np.ndarray
    targets: np.ndarray  # TD(0)'s
    returns: np.ndarray  # Monte Carlo


class Ends(NamedTuple):
    """The loss of the first and of the last steps: means and the standard error of their difference."""

    first: float
    last: float
    error: float


def facts_of(held: HeldOut, losses: Sequence[float]) -> dict[str, float]:
    """The figures that are reported; one that can't be measured is left out.

    `losses` are those of all steps. `within_image_spread` is the root mean variance of V over the sentences of one image, which
    is what a search compares.
    """
    ends = ends_of(losses)
    figures = {
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
    if not np.isfinite(held.values).all():
        return "its values are not finite. Lower value.lr"
    ranks, spread = correlation(held), float(held.values.std()) if len(held.values) else 0.0
    within, ends = within_spread(held.values, held.images), ends_of(losses)
    # A few hundred sentences leave the correlation uncertain by 1 / sqrt(n): refuse what is too low even so.
    slack = 1.96 / max(1.0, len(held.values) - 1) ** 0.5
    if spread < limits.min_spread or not ranks + slack >= limits.min_spearman:
        return (
            f"on {len(held.values)} held-out sentences its spread is {spread:.2g} (at least {limits.min_spread:g}) and "
            f"its rank correlation with the Monte-Carlo return {ranks:.3f} (at least {limits.min_spearman:g}). "
            "Raise sample.images or value.epochs, change value.lr"
        )
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
    return None


def correlation(held: HeldOut) -> float:
    """Rank correlation of V and the return; NaN where either never differs."""
    # Returns that differ by rounding only have no order to follow.
    if not len(held.values) or not np.ptp(held.returns) > 1e-9:
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
