"""How sure a difference is: its p-value from one seed or several, and Holm's correction over all that are judged together.

One seed: value over bootstrap standard error by Student's t with as many degrees as items, less one (Efron and Tibshirani 1993,
chapter 12). A share of resamples would be too coarse for Holm: it can't fall below one over their number.

Several seeds: the seed is a random effect, so the mean of the seeds by Student's t with seeds less one degrees (Hartung and
Knapp 2001). Its variance is the larger of two: that between seeds, and that which images alone cause within a seed; else seeds
that agree by luck would look surer than any of them is (Röver, Knapp and Friede 2015). With three seeds that is wide: 4.3
standard errors each way. A bootstrap of three seeds would be far too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class Effect(NamedTuple):
    """A mean over seeds with its interval; NaN where a number is not known."""

    value: float
    stderr: float
    low: float
    high: float
    p: float  # two-sided, of a true value of zero
    seeds: int


def of_one_seed(value: float, stderr: float, n: int) -> float:
    """Two-sided p-value of a paired difference with this bootstrap standard error over n items; NaN if it can't be known.

    Without any spread every item has the same difference: a sign test of n items of one side.
    """
    if n < 2 or not math.isfinite(stderr) or not math.isfinite(value):
        return math.nan
    if stderr == 0:
        return 1.0 if value == 0 else 2.0 ** (1 - n)
    return _two_sided(value / stderr, n - 1)


def over_seeds(values: Sequence[float], stderrs: Sequence[float], confidence: float = 0.95) -> Effect:
    """The mean of figures of several seeds with the seed as a random effect.

    Args:
        values: a figure of each seed.
        stderrs: their standard errors within the seed; NaN where not known, which leaves the variance between seeds.
        confidence: of the interval.

    Returns:
        The mean; interval and p are NaN below two seeds, for one says nothing of another.

    Raises:
        ValueError: lengths that differ, or no value.
    """
    if len(values) != len(stderrs) or not values:
        raise ValueError(f"{len(values)} values and {len(stderrs)} standard errors: want one of each for every seed")
    seeds, mean = len(values), math.fsum(values) / len(values)
    if seeds < 2 or not math.isfinite(mean):
        return Effect(mean, math.nan, math.nan, math.nan, math.nan, seeds)
    between = math.fsum((value - mean) ** 2 for value in values) / (seeds - 1)
    known = [stderr for stderr in stderrs if math.isfinite(stderr)]
    within = math.fsum(stderr**2 for stderr in known) / len(known) if known else 0.0
    stderr = math.sqrt(max(between, within) / seeds)
    half = _quantile((1 + confidence) / 2, seeds - 1) * stderr
    of_one_side = 1.0 if mean == 0 else 2.0 ** (1 - seeds)  # without any spread: a sign test, as above
    p = _two_sided(mean / stderr, seeds - 1) if stderr else of_one_side
    return Effect(mean, stderr, mean - half, mean + half, p, seeds)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for all of them by Holm (1979), in their order; NaN is none of the family and stays NaN.

    The k-th smallest of m is multiplied by m - k + 1, is at least the one before it, and at most 1.
    """
    order = sorted((p, index) for index, p in enumerate(p_values) if not math.isnan(p))
    adjusted, least = [math.nan] * len(p_values), 0.0
    for rank, (p, index) in enumerate(order):
        least = max(least, min(1.0, p * (len(order) - rank)))
        adjusted[index] = least
    return adjusted


def stderr_of_interval(low: float, high: float) -> float:
    """The standard error that a 95 % interval implies, for figures that were stored without one."""
    return (high - low) / (2 * 1.959964)


def _two_sided(t: float, degrees: int) -> float:
    from scipy.special import stdtr  # only who judges differences waits for the import

    return float(2 * stdtr(degrees, -abs(t)))


def _quantile(share: float, degrees: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees, share))
