"""Scores that are expensive to compute: computed once for each job and text, from the image and the text alone.

The rating function sees images and texts, never the job they belong to. So a sentence has the same score in the score stage,
whose jobs are image ids, and in a search, whose jobs are numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeAlias

from PIL import Image

# (images [N], the texts about each [N]) -> their scores, in the same order; None: can't be scored.
Rate: TypeAlias = Callable[[Sequence[Image.Image], Sequence[Sequence[str]]], Sequence[Sequence[float | None]]]


class CachedScorer:
    """`Scores` of a rating function, see there; no text is too long for it."""

    def __init__(self, rate: Rate, counters: Counter[str], counter: str) -> None:
        """`counter`: under which name the rated texts are counted."""
        self.rate, self.counters, self.counter = rate, counters, counter
        self._known: dict[Hashable, dict[str, float | None]] = {}

    def score(self, images: Mapping[Any, Image.Image], pairs: Sequence[tuple[Hashable, str]]) -> list[float | None]:
        """One for each (job, text) of `pairs`, in order."""
        new: dict[Hashable, list[str]] = {}
        for job, text in dict.fromkeys(pairs):
            if text not in self._known.setdefault(job, {}):
                new.setdefault(job, []).append(text)
        if new:
            rated = self.rate([images[job] for job in new], list(new.values()))
            for (job, texts), scores in zip(new.items(), rated, strict=True):
                self._known[job] |= dict(zip(texts, scores, strict=True))
                self.counters[self.counter] += len(texts)
        return [self._known[job][text] for job, text in pairs]

    def forget(self, job: Hashable) -> None:
        """Drop the job's scores."""
        self._known.pop(job, None)

    def is_cut(self, text: str) -> bool:
        """Never: a rating function is taken to read all of a sentence."""
        return False
