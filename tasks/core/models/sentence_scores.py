"""Scores of sentences about images, for many jobs at once: what the score stage and the searches share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from PIL import Image

from tasks.core.models.scorer import Scorer, cosines

Images = Mapping[Any, Image.Image]  # by job


class Scores(Protocol):
    """Scores texts about images."""

    def score(self, images: Images, pairs: Sequence[tuple[Hashable, str]]) -> list[float | None]:
        """One for each (job, text) of `pairs`, in order; None: can't be scored."""

    def forget(self, job: Hashable) -> None:
        """The job is over."""

    def is_cut(self, text: str) -> bool:
        """Whether the text is longer than what can be read."""


class Cosines:
    """The scorer's cosine: each image embedded once, each text once for as long as it is cached."""

    def __init__(self, scorer: Scorer, counters: Counter[str], cache_size: int = 16_384) -> None:
        """`cache_size`: texts whose vectors are kept."""
        self.scorer, self.counters, self.cache_size = scorer, counters, cache_size
        self._images: dict[Hashable, np.ndarray] = {}
        self._texts: dict[str, np.ndarray] = {}

    def score(self, images: Images, pairs: Sequence[tuple[Hashable, str]]) -> list[float | None]:
        """Cosines, as `Scores` specifies."""
        jobs = [job for job in dict.fromkeys(job for job, _ in pairs) if job not in self._images]
        texts = [text for text in dict.fromkeys(text for _, text in pairs) if text not in self._texts]
        if jobs:
            self._images |= dict(zip(jobs, self.scorer.embed_images([images[job] for job in jobs]), strict=True))
        if texts:
            self._texts |= dict(zip(texts, self.scorer.embed_texts(texts), strict=True))
        self.counters["images_embedded"] += len(jobs)
        self.counters["texts_embedded"] += len(texts)
        of_images, of_texts = [self._images[job] for job, _ in pairs], [self._texts[text] for _, text in pairs]
        for text in list(self._texts)[: max(0, len(self._texts) - self.cache_size)]:
            del self._texts[text]
        scores = cosines(np.stack(of_images), np.stack(of_texts), range(len(pairs)))
        return [float(score) for score in scores]

    def forget(self, job: Hashable) -> None:
        """Drop the image's vector."""
        self._images.pop(job, None)

    def is_cut(self, text: str) -> bool:
        """Whether the scorer's context is shorter than the text."""
        return self.scorer.is_cut(text)
