"""From sentence scores to rewards.

A score d is the cosine of a sentence and its image. ViMaR (arXiv 2506.15649) subtracts a margin (tau in a profile); its
equation, its text and its code disagree (docs/decisions), so every form has a name here. The default is the released code's.

The paper's margin is a positive cosine, and a score below it loses as much as the margin. Where scores may be negative (a
log-likelihood, a standardised sum), so may be the margin, and the same formulas would raise what is below it. There `margin`
and `zero_below` subtract the margin's size as well, so that a lower score never earns more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

Shape = Callable[[np.ndarray, float, float], np.ndarray]

# name -> (score [N], margin, alpha) -> reward [N]
SHAPES: dict[str, Shape] = {
    "none": lambda d, margin, alpha: d,
    "margin": lambda d, margin, alpha: np.where(d >= margin, d, -alpha * (margin - d) + min(0.0, 2 * margin)),
    # As printed in the paper: below the margin the "penalty" is positive.
    "published_equation": lambda d, margin, alpha: np.where(d >= margin, d, margin - d),
    "zero_below": lambda d, margin, alpha: np.where(d >= margin, d, min(0.0, 2 * margin)),
    "floor": lambda d, margin, alpha: np.maximum(d, margin),
    # Like "margin", without its jump by the margin's size.
    "continuous": lambda d, margin, alpha: d - alpha * np.maximum(0.0, margin - d),
    # What a score is above the margin: 0 is neither good nor bad, so that a sum of rewards can be compared with ending.
    "centred": lambda d, margin, alpha: d - margin,
}


def shape_scores(scores: np.ndarray, *, shaping: str, margin: float, alpha: float) -> np.ndarray:
    """Rewards [N] of scores [N] under the margin rule named `shaping` (ViMaR section 3.1 and appendix A.6).

    Raises:
        ValueError: scores of another shape.
    """
    if scores.ndim != 1:
        raise ValueError(f"scores have shape {scores.shape}: want [N]")
    return SHAPES[shaping](scores.astype(np.float64), margin, alpha)


def end_value_of(shaping: str, margin: float) -> float:
    """What ending an answer is worth beside sentences that are rewarded so: 0 where 0 parts scores above the margin from
    those below it, else the reward of a score at the margin.

    0 parts them under `centred`, and under `margin` unless the margin is negative. Under `none`, `floor`, `zero_below` and
    `published_equation` no reward of a cosine is below 0, so that ending would never be worth it; `continuous` has its 0
    somewhere below the margin.
    """
    return 0.0 if shaping == "centred" or (shaping == "margin" and margin >= 0) else margin


def quantile_margin(scores: Sequence[float] | np.ndarray, q: float) -> float:
    """The q-quantile of the scores, q in [0, 1].

    Raises:
        ValueError: no scores.
    """
    if not len(scores):
        raise ValueError("no scores: a margin needs at least one scored sentence")
    return float(np.quantile(np.asarray(scores, dtype=np.float64), q))


def otsu_threshold(scores: Sequence[float] | np.ndarray) -> float:
    """The threshold that splits the scores into two groups with the largest between-group variance (Otsu 1979).

    Exact over the sorted values, no histogram; the threshold lies half way between two neighbouring scores.

    Raises:
        ValueError: scores without spread.
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
    between[np.diff(values) == 0] = -1.0  # no threshold lies between equal scores
    cut = int(np.argmax(between))
    return float((values[cut] + values[cut + 1]) / 2)


class Groups(NamedTuple):
    """Two groups of numbers: the threshold between them, and the mean of each."""

    threshold: float
    low: float
    high: float


def minimum_error(scores: Sequence[float] | np.ndarray, least: int = 10) -> Groups:
    """The threshold at which two normal distributions fit best (Kittler and Illingworth 1986, Pattern Recognition 19).

    Unlike Otsu's it allows for groups of very different sizes: of 80 kinds of objects an image holds three. Exact over the
    sorted values, no histogram; the threshold lies half way between two neighbours.

    Args:
        scores: [N].
        least: members of the smaller group at least.

    Raises:
        ValueError: no two such groups with spread.
    """
    values = np.sort(np.asarray(scores, dtype=np.float64))
    n = len(values)
    low_n = np.arange(1, n)
    high_n = n - low_n
    centred = values - (values.mean() if n else 0.0)  # squares of large numbers lose the digits of small differences
    sums, squares = np.cumsum(centred)[:-1], np.cumsum(centred**2)[:-1]
    low, high = sums / low_n, (centred.sum() - sums) / high_n
    low_var = squares / low_n - low**2
    high_var = ((centred**2).sum() - squares) / high_n - high**2
    tiny = 1e-9 * float(centred.var()) if n else 0.0
    fits = (low_n >= least) & (high_n >= least) & (low_var > tiny) & (high_var > tiny) & (np.diff(values) > 0)
    if not fits.any():
        raise ValueError(
            f"{n} scores hold no two groups of at least {least} different ones: there is no threshold to find"
        )
    share = low_n / n
    with np.errstate(divide="ignore", invalid="ignore"):
        error = share * np.log(low_var / share**2) + (1 - share) * np.log(high_var / (1 - share) ** 2)
    cut = int(np.argmin(np.where(fits, error, np.inf)))
    return Groups(
        threshold=float((values[cut] + values[cut + 1]) / 2),
        low=float(values[: cut + 1].mean()),
        high=float(values[cut + 1 :].mean()),
    )
