"""Estimates with their uncertainty: bootstrap over items, paired where two subjects saw the same items.

A ratio metric (CHAIRi) is a ratio of sums, so it is resampled by item, never averaged over per-item ratios.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np


class Estimate(NamedTuple):
    """A value with its bootstrap standard error and interval; all NaN but the value below two items."""

    value: float
    stderr: float
    ci_low: float
    ci_high: float
    n: int


class Difference(NamedTuple):
    """A paired difference a - b with its interval, two-sided bootstrap p-value and bootstrap standard error."""

    diff: float
    ci_low: float
    ci_high: float
    p: float
    n: int
    stderr: float


class Ratio(NamedTuple):
    """A metric as numerator and denominator of each item, both [N]; a mean has a denominator of ones."""

    top: np.ndarray
    bottom: np.ndarray

    def value(self) -> float:
        """Sum over sum; 0 where nothing was counted (a caption set without any object has CHAIRi 0)."""
        total = float(self.bottom.sum())
        return float(self.top.sum()) / total if total else 0.0


def without_interval(value: float, n: int) -> Estimate:
    """An estimate whose spread is not known."""
    return Estimate(value, float("nan"), float("nan"), float("nan"), n)


def resample(ratio: Ratio, draws: np.ndarray) -> np.ndarray:
    """The metric of every resample: draws are item indices [R, N], the result is [R]."""
    top, bottom = ratio.top[draws].sum(axis=1), ratio.bottom[draws].sum(axis=1)
    return np.divide(top, bottom, out=np.zeros(len(draws)), where=bottom > 0)


def bootstrap_draws(n: int, resamples: int, seed: int) -> np.ndarray:
    """Item indices [resamples, n]; the same for every metric and subject, which is what pairs them."""
    return np.random.Generator(np.random.Philox(key=seed)).integers(0, n, size=(resamples, n))


def percentiles(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """The ends of the interval that holds the middle `confidence` of the values [R]."""
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def estimate(ratio: Ratio, *, draws: np.ndarray, confidence: float = 0.95) -> Estimate:
    """The metric with its percentile bootstrap interval."""
    n = len(ratio.top)
    if n < 2:
        return without_interval(ratio.value(), n)
    values = resample(ratio, draws)
    return Estimate(ratio.value(), float(values.std(ddof=1)), *percentiles(values, confidence), n)


def paired_difference(a: Ratio, b: Ratio, *, draws: np.ndarray, confidence: float = 0.95) -> Difference:
    """a - b over the same items in the same order, both resampled together.

    Raises:
        ValueError: if a and b don't have the same number of items.
    """
    if len(a.top) != len(b.top):
        raise ValueError(f"{len(a.top)} and {len(b.top)} items: a paired difference needs the same items")
    n = len(a.top)
    diff = a.value() - b.value()
    if n < 2:
        return Difference(diff, float("nan"), float("nan"), float("nan"), n, float("nan"))
    values = resample(a, draws) - resample(b, draws)
    low, high = percentiles(values, confidence)
    # The share of resamples on the far side of zero, both sides; +1 keeps it above 0 (Davison & Hinkley 1997, 4.2).
    tail = min((values <= 0).sum(), (values >= 0).sum())
    p = min(1.0, 2 * (float(tail) + 1) / (len(values) + 1))
    return Difference(diff, low, high, p, n, float(values.std(ddof=1)))


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 0, ties share their mean rank; [N] -> [N], all NaN if one value is."""
    from scipy.stats import rankdata  # takes a second to import, which a command that ranks nothing need not wait for

    return rankdata(values) - 1


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation of two [N] arrays; NaN if one of them is constant.

    Not `scipy.stats.spearmanr`, whose last digit differs from that of the figures that are stored.

    Raises:
        ValueError: for other shapes.
    """
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"shapes {a.shape} and {b.shape}: want two of [N]")
    x, y = ranks(a), ranks(b)
    x, y = x - x.mean(), y - y.mean()
    norm = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / norm if norm else float("nan")


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Chance that a random positive scores above a random negative, ties half; NaN if one side is empty."""
    if not len(positive) or not len(negative):
        return float("nan")
    rank = ranks(np.concatenate([positive, negative]))
    n, m = len(positive), len(negative)
    return float((rank[:n].sum() - n * (n - 1) / 2) / (n * m))


def grouped_auc(groups: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> tuple[float, list[float]]:
    """(mean, all) of the AUCs within each group that has both positives and negatives."""
    values = [auc(positive, negative) for positive, negative in groups.values() if len(positive) and len(negative)]
    return (float(np.mean(values)) if values else float("nan")), values
