"""From sentence scores to rewards.

A score d is the cosine of a sentence and its image. ViMaR (arXiv 2506.15649) subtracts a margin; its equation, its text and its
code disagree (docs/decisions), so every form has a name here. The default is the released code's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Shape = Callable[[np.ndarray, float, float], np.ndarray]

# name -> (score [N], tau, alpha) -> reward [N]
SHAPES: dict[str, Shape] = {
    "none": lambda d, tau, alpha: d,
    "margin": lambda d, tau, alpha: np.where(d >= tau, d, -alpha * (tau - d)),
    # As printed in the paper: below the margin the "penalty" is positive.
    "published_equation": lambda d, tau, alpha: np.where(d >= tau, d, tau - d),
    "zero_below": lambda d, tau, alpha: np.where(d >= tau, d, 0.0),
    "floor": lambda d, tau, alpha: np.maximum(d, tau),
    # Like margin, without its jump of size tau at the threshold.
    "continuous": lambda d, tau, alpha: d - alpha * np.maximum(0.0, tau - d),
}


def shape_scores(scores: np.ndarray, *, shaping: str, tau: float, alpha: float) -> np.ndarray:
    """Rewards [N] of scores [N] under the margin rule named `shaping` (ViMaR section 3.1 and appendix A.6)."""
    if scores.ndim != 1:
        raise ValueError(f"scores have shape {scores.shape}: want [N]")
    return SHAPES[shaping](scores.astype(np.float64), tau, alpha)


def quantile_tau(scores: Sequence[float] | np.ndarray, q: float) -> float:
    """The q-quantile of the scores, q in [0, 1]."""
    if not len(scores):
        raise ValueError("no scores: a margin needs at least one scored sentence")
    return float(np.quantile(np.asarray(scores, dtype=np.float64), q))


def otsu_tau(scores: Sequence[float] | np.ndarray) -> float:
    """The threshold that parts the scores into two groups with the largest between-group variance (Otsu 1979).

    Exact over the sorted values, no histogram; the threshold lies half way between two neighbouring scores.
    """
    values = np.sort(np.asarray(scores, dtype=np.float64))
    n = len(values)
    if n < 2 or values[0] == values[-1]:
        raise ValueError(
            f"{n} scores without spread: Otsu's threshold needs two different ones; use label.tau.kind=fixed"
        )
    low_sum = np.cumsum(values)[:-1]
    low_n = np.arange(1, n)
    low_mean, high_mean = low_sum / low_n, (values.sum() - low_sum) / (n - low_n)
    between = low_n * (n - low_n) * (high_mean - low_mean) ** 2
    between[np.diff(values) == 0] = -1.0  # a threshold can't part equal scores
    cut = int(np.argmax(between))
    return float((values[cut] + values[cut + 1]) / 2)
