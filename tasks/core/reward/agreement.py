"""How alike rewards order the same sentences: Spearman's rank correlation, over all of them and within an image.

Pooled, a reward that merely likes some images agrees with another that does; within an image only the sentences compete, as
they do in a search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from tasks.core.metrics import spearman

POOLED, WITHIN = "pooled", "within_image"


class Pair(NamedTuple):
    """The rank correlation of two rewards."""

    a: str
    b: str
    scope: str
    spearman: float
    n: int


def agreements(scores: Mapping[str, np.ndarray], images: Sequence[str]) -> list[Pair]:
    """Rank correlations of every two of `scores`, name -> [N] with NaN where there is none, in their order.

    Only sentences that both rewards scored count. Ties share their mean rank.

    pooled: over all N sentences; NaN if fewer than two are left or one reward is constant on them; n: sentences.
    within_image: mean of the images' own correlations, each image weighing the same; an image with fewer than two sentences,
    or on which one of the two is constant, has none and is left out; NaN if none is left; n: images that count.

    Args:
        scores: one array [N] a reward.
        images: to which image each sentence belongs [N].

    Raises:
        ValueError: arrays of another length than `images`.
    """
    groups: dict[str, list[int]] = {}
    for index, image in enumerate(images):
        groups.setdefault(image, []).append(index)
    for name, values in scores.items():
        if values.shape != (len(images),):
            raise ValueError(f"scores of {name} have shape {values.shape}: want [{len(images)}], one a sentence")
    pairs = []
    for a, b in combinations(scores, 2):
        both = np.isfinite(scores[a]) & np.isfinite(scores[b])
        pairs.append(Pair(a, b, POOLED, _correlation(scores[a], scores[b], both), int(both.sum())))
        within = [_correlation(scores[a][group], scores[b][group], both[group]) for group in groups.values()]
        known = [correlation for correlation in within if not np.isnan(correlation)]
        pairs.append(Pair(a, b, WITHIN, float(np.mean(known)) if known else float("nan"), len(known)))
    return pairs


def _correlation(a: np.ndarray, b: np.ndarray, both: np.ndarray) -> float:
    return spearman(a[both], b[both]) if both.sum() > 1 else float("nan")
