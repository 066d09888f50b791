"""Objects that a detector saw in the image: whether a sentence names such (`objects`), how many it adds (`completeness`).

Images are looked up by their pixels: a search has no image ids, and the same picture may have several.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from PIL import Image

from tasks.core.benchmarks.mentions import find_mentions
from tasks.core.models.cached_scorer import CachedScorer
from tasks.core.text import split_sentences

if TYPE_CHECKING:
    from tasks.core.models.sentence_scores import Images


def pixel_digest(image: Image.Image) -> str:
    """SHA-256 of an image's size and its decoded RGB pixels, whatever the file was."""
    upright = image.convert("RGB")
    return hashlib.sha256(f"{upright.width}x{upright.height}:".encode() + upright.tobytes()).hexdigest()


def named_share(text: str, there: frozenset[str]) -> float:
    """Mean over the sentence's mentions of COCO objects: 1 if the object is there, -1 if not; 0 if it names none."""
    mentions = find_mentions(text)
    return sum(1 if mention.object in there else -1 for mention in mentions) / len(mentions) if mentions else 0.0


class _Detected:
    """What is in an image; one that no detector looked at holds nothing and is counted, once."""

    def __init__(self, detections: Mapping[str, frozenset[str]], counters: Counter[str]) -> None:
        self.detections, self.counters = detections, counters
        self._unknown: set[str] = set()

    def __call__(self, image: Image.Image) -> frozenset[str]:
        digest = pixel_digest(image)
        if digest not in self.detections and digest not in self._unknown:
            self._unknown.add(digest)
            self.counters["images_without_detections"] += 1
        return self.detections.get(digest, frozenset())


def object_scores(detections: Mapping[str, frozenset[str]], counters: Counter[str]) -> CachedScorer:
    """`Scores` by the detected objects of each image, by pixel digest.

    An image without detections holds nothing: whatever a sentence names counts as -1. Such images are counted as
    `images_without_detections`.
    """
    detected = _Detected(detections, counters)

    def rate(images: Sequence[Image.Image], texts: Sequence[Sequence[str]]) -> list[list[float | None]]:
        scores: list[list[float | None]] = []
        for image, some in zip(images, texts, strict=True):
            there = detected(image)
            scores.append([named_share(text, there) for text in some])
        return scores

    return CachedScorer(rate, counters, "texts_scored_objects")


@lru_cache(maxsize=65_536)
def _named_in(sentence: str) -> frozenset[str]:
    return frozenset(mention.object for mention in find_mentions(sentence))


def objects_named(text: str) -> frozenset[str]:
    """COCO's objects that a text names. Sentence by sentence: "It is hot. Dogs run." names no hot dog."""
    return frozenset[str]().union(*(_named_in(sentence.text) for sentence in split_sentences(text)))


class Completeness:
    """Share of an image's detected objects that an answer names (MRGD, arXiv 2508.11616); as `Scores`, what a sentence adds.

    An answer about an image in which nothing was detected has share 0, whatever it names: nothing is known to be missing, and
    every sentence adds 0. So has an image that no detector looked at; those are counted as `images_without_detections`.
    """

    def __init__(self, detections: Mapping[str, frozenset[str]], counters: Counter[str]) -> None:
        """`detections`: objects by pixel digest."""
        self._detected = _Detected(detections, counters)
        self._there: dict[Hashable, frozenset[str]] = {}

    def shares(self, images: Images, items: Sequence[tuple[Hashable, str, str]]) -> list[float]:
        """Share of the detected objects, 0 to 1, that (job, answer so far, text after it) names, text included."""
        return [self._share(images, job, objects_named(before) | objects_named(text)) for job, before, text in items]

    def score_after(self, images: Images, items: Sequence[tuple[Hashable, str, str]]) -> list[float | None]:
        """What each text adds to the share, 0 to 1: over an answer's sentences this sums to the answer's share."""
        return [self._share(images, job, objects_named(text) - objects_named(before)) for job, before, text in items]

    def score(self, images: Images, pairs: Sequence[tuple[Hashable, str]]) -> list[float | None]:
        """As `score_after`, of texts that begin their answers."""
        return self.score_after(images, [(job, "", text) for job, text in pairs])

    def forget(self, job: Hashable) -> None:
        """Drop the job's image."""
        self._there.pop(job, None)

    def is_cut(self, text: str) -> bool:
        """Never: words are looked up in all of a text."""
        return False

    def _share(self, images: Images, job: Hashable, named: frozenset[str]) -> float:
        if job not in self._there:
            self._there[job] = self._detected(images[job])
        there = self._there[job]
        return len(named & there) / len(there) if there else 0.0
