"""How V orders what a search compares: different sentences of one image at one position of their answers.

Over all sentences together a rank correlation is mostly one of images and positions: sentences of an image full of objects are
worth less than those of an empty one, and first sentences differ from last ones. A search makes neither comparison, and a V of
the image and the position alone guides none. So only pairs of sentences within a group, an image and a position, count:

- `rank`: ranks of V and of the return, each within its group and centred there, correlated over all groups (Spearman's,
  with the groups as a fixed effect). They are divided by the root of the group's size, so that a group counts about as its
  pairs do.
- `auc`: the share of the pairs with different returns whose better one has the larger V; equal values count half. 0.5 is
  chance.

Sentences that V can't tell apart, for they are the same state, are one sentence: its return is the mean of theirs, which is the
expectation that V is to learn. Left apart they would be pairs that no V can order.

Intervals: answers of an image are dependent, so images are resampled. Percentiles of few images are too narrow, hence the
bootstrap's standard error with Student's quantile for the images that have a pair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from storage.schema import Value
from tasks.core.metrics import Estimate, bootstrap_draws, ranks, without_interval

DIGITS = 9  # returns that differ by rounding only have no order
RESAMPLES = 2000


class HeldOut(NamedTuple):
    """Held-out sentences, [N] each."""

    images: np.ndarray  # of which image, int or text
    steps: np.ndarray  # 0-based position in the answer
    states: np.ndarray  # what V read beside the image; equal ones are one sentence
    values: np.ndarray
    targets: np.ndarray  # TD(0)'s
    returns: np.ndarray  # Monte Carlo


class Ranking(NamedTuple):
    """How V orders the sentences of an image at a position; the estimates' `n` are pairs."""

    rank: Estimate  # correlation of ranks, -1 to 1
    auc: Estimate  # 0 to 1
    pairs: int  # whose returns differ
    images: int  # that have such a pair


def held_out(rows: Sequence[Value]) -> HeldOut:
    """Rows of the table as columns."""
    return HeldOut(
        np.array([row.image_id for row in rows]),
        np.array([row.step for row in rows]),
        np.array([row.state for row in rows]),
        np.array([row.value for row in rows]),
        np.array([row.td_target for row in rows]),
        np.array([row.mc_return for row in rows]),
    )


def ranking_of(held: HeldOut, *, confidence: float = 0.95, seed: int = 0) -> Ranking:
    """The ranking within an image and a position, with intervals over images; NaN where no two returns differ."""
    by_image: dict[object, list[np.ndarray]] = {}
    for image, values, returns in _groups(held):
        sums = _sums(values, returns)
        if sums[-1]:
            by_image.setdefault(image, []).append(sums)
    sums = np.array([np.sum(of_image, axis=0) for of_image in by_image.values()]).reshape(-1, 5)
    pairs, draws = int(sums[:, 4].sum()), None
    if len(sums) > 1:
        draws = bootstrap_draws(len(sums), RESAMPLES, seed)
    rank = _estimate(sums[:, :3], _correlation, draws, confidence, pairs)
    auc = _estimate(sums[:, 3:], _share, draws, confidence, pairs)
    return Ranking(_within(rank, -1.0), _within(auc, 0.0), pairs, len(sums))


def _groups(held: HeldOut) -> list[tuple[object, np.ndarray, np.ndarray]]:
    """(image, values, returns) of the different states of every image and position."""
    groups: dict[tuple[object, int], dict[object, list[int]]] = {}
    for row, key in enumerate(zip(held.images.tolist(), held.steps.tolist(), strict=True)):
        groups.setdefault(key, {}).setdefault(held.states[row], []).append(row)
    return [
        (image, _means(held.values, [*states.values()]), _means(held.returns, [*states.values()]).round(DIGITS))
        for (image, _), states in groups.items()
    ]


def _means(numbers: np.ndarray, states: Sequence[Sequence[int]]) -> np.ndarray:
    return np.array([numbers[rows].mean() for rows in states])


def _sums(values: np.ndarray, returns: np.ndarray) -> np.ndarray:
    """Of a group [n]: products of centred ranks (V and return, V, return), pairs in V's favour, pairs."""
    x, y = ((ranks(numbers) - (len(numbers) - 1) / 2) / len(numbers) ** 0.5 for numbers in (values, returns))
    above = np.subtract.outer(returns, returns) > 0
    ahead = np.subtract.outer(values, values)[above]
    return np.array([x @ y, x @ x, y @ y, (ahead > 0).sum() + (ahead == 0).sum() / 2, above.sum()], float)


def _correlation(sums: np.ndarray) -> np.ndarray:
    """Of sums [..., 3]; 0 where V, or the return, is the same within every group."""
    norm = np.sqrt(sums[..., 1] * sums[..., 2])
    return np.divide(sums[..., 0], norm, out=np.zeros_like(norm), where=norm > 0)


def _share(sums: np.ndarray) -> np.ndarray:
    """Of sums [..., 2]."""
    return np.asarray(sums[..., 0] / sums[..., 1])


def _estimate(
    sums: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    draws: np.ndarray | None,
    confidence: float,
    pairs: int,
) -> Estimate:
    """A statistic of the sums over images [I, ...]."""
    if not len(sums):
        return without_interval(float("nan"), 0)
    value = float(statistic(sums.sum(axis=0)))
    if draws is None:
        return without_interval(value, pairs)
    from scipy.stats import t  # slow to import

    error = float(statistic(sums[draws].sum(axis=1)).std(ddof=1)) * (len(sums) / (len(sums) - 1)) ** 0.5
    reach = float(t.ppf((1 + confidence) / 2, len(sums) - 1)) * error
    return Estimate(value, error, value - reach, value + reach, pairs)


def _within(estimate: Estimate, least: float) -> Estimate:
    """The interval's ends within what the figure can be, `least` to 1."""
    low, high = (float(np.clip(end, least, 1.0)) for end in (estimate.ci_low, estimate.ci_high))
    return estimate._replace(ci_low=low, ci_high=high)
