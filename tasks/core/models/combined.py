"""Several rewards as one: their weighted sum, each standardised first if its scale requires it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tasks.core.models.in_context import score_after

if TYPE_CHECKING:
    from tasks.core.models.sentence_scores import Images, Scores


@dataclass(frozen=True)
class Scale:
    """How a reward enters the sum: weight times (score - mean) / deviation; raw: mean 0 and deviation 1."""

    weight: float
    mean: float = 0.0
    deviation: float = 1.0


def weighted_sum(scores: Sequence[Sequence[float | None]], scales: Sequence[Scale]) -> list[float | None]:
    """The sum over rewards [R] of each of N texts' scores [R][N]; None where a reward gave none.

    Added in float64 and in the rewards' order, so that a search has the score stage's sums to the last bit.

    Raises:
        ValueError: rewards and scales, or the rewards' texts, differ in number.
    """
    lengths = [len(of_reward) for of_reward in scores]
    if len(scores) != len(scales) or len(set(lengths)) > 1:
        raise ValueError(f"{len(scales)} scales for scores of lengths {lengths}: want as many, of one length")
    total = np.zeros(len(scores[0]) if scores else 0)
    for of_reward, scale in zip(scores, scales, strict=True):
        numbers = np.array([np.nan if score is None else score for score in of_reward], dtype=np.float64)
        total += scale.weight * ((numbers - scale.mean) / scale.deviation)
    return [None if np.isnan(number) else float(number) for number in total]


class Combined:
    """`Scores` of several rewards, summed."""

    def __init__(self, parts: Sequence[Scores], scales: Sequence[Scale]) -> None:
        """As many scales as parts, in the same order."""
        if len(parts) != len(scales) or not parts:
            raise ValueError(f"{len(parts)} rewards and {len(scales)} scales: want as many, at least one")
        self.parts, self.scales = parts, scales

    def score(self, images: Images, pairs: Sequence[tuple[Hashable, str]]) -> list[float | None]:
        """Sums, as `Scores` specifies; None where one of the rewards gave none."""
        return self.score_after(images, [(job, "", text) for job, text in pairs])

    def score_after(self, images: Images, items: Sequence[tuple[Hashable, str, str]]) -> list[float | None]:
        """Sums, as `ScoresInContext` specifies."""
        return weighted_sum([score_after(part, images, items) for part in self.parts], self.scales) if items else []

    def forget(self, job: Hashable) -> None:
        """Drop the job's scores in every reward."""
        for part in self.parts:
            part.forget(job)

    def is_cut(self, text: str) -> bool:
        """Whether the text is too long for one of the rewards."""
        return any(part.is_cut(text) for part in self.parts)
