"""How good rewards of the same sentences are: do they separate true from hallucinated, and do they rank them alike?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tasks.core.metrics import Ratio, auc, spearman


class Scored(NamedTuple):
    """A sentence of a rollout with its score, and whether it is hallucinated; None: it names no object, or has no score."""

    image: str
    sentence: str
    score: float | None
    wrong: bool | None


def within_image_auc(rows: Sequence[Scored]) -> Ratio:
    """AUC of each image that has both kinds of sentences, as a mean over images; equal sentences of an image count once."""
    groups: dict[str, tuple[dict[str, float], dict[str, float]]] = {}
    for row in rows:
        if row.score is not None and row.wrong is not None:
            groups.setdefault(row.image, ({}, {}))[row.wrong].setdefault(row.sentence, row.score)
    aucs = [
        auc(np.array(list(good.values())), np.array(list(bad.values())))
        for _, (good, bad) in sorted(groups.items())
        if good and bad
    ]
    return _mean(aucs)


def within_image_ranks(a: Sequence[Scored], b: Sequence[Scored]) -> Ratio:
    """Rank correlation of two rewards within each image, as a mean over images; an image on which a reward is
    constant has none.

    The same figure as `tasks.core.reward.agreement`'s within an image, in a form that can be resampled.

    Args:
        a: scores by the first reward.
        b: scores of the same sentences by the second, in the same order.

    Raises:
        ValueError: they are not the same sentences.
    """
    if [(row.image, row.sentence) for row in a] != [(row.image, row.sentence) for row in b]:
        raise ValueError("two rewards of other sentences: want the same rollouts scored by each")
    groups: dict[str, list[tuple[float, float]]] = {}
    for row, other in zip(a, b, strict=True):
        if row.score is not None and other.score is not None:
            groups.setdefault(row.image, []).append((row.score, other.score))
    known = []
    for _, pairs in sorted(groups.items()):
        x, y = np.array(pairs).T
        value = spearman(x, y) if len(pairs) > 1 else float("nan")
        if not np.isnan(value):
            known.append(value)
    return _mean(known)


def quality(scored: Mapping[str, Sequence[Scored]]) -> dict[str, dict[str, Ratio]]:
    """Of every reward: `auc` where truth is known, and `rank: OTHER` with each other reward."""
    ratios: dict[str, dict[str, Ratio]] = {}
    for name, rows in scored.items():
        judged = within_image_auc(rows)
        ratios[name] = {"auc": judged} if len(judged.top) else {}
        for other, theirs in scored.items():
            if other != name:
                ratios[name][f"rank: {other}"] = within_image_ranks(rows, theirs)
    return ratios


def _mean(values: Sequence[float]) -> Ratio:
    return Ratio(np.array(values, float), np.ones(len(values)))
