"""Whether a detector saw in the image what a sentence names: the reward `objects`.

Images are looked up by their pixels: a search has no image ids, and the same picture may have several.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

from PIL import Image

from tasks.core.benchmarks.mentions import find_mentions
from tasks.core.models.cached_scorer import CachedScorer


def pixel_digest(image: Image.Image) -> str:
    """SHA-256 of an image's size and its decoded RGB pixels, whatever the file was."""
    upright = image.convert("RGB")
    return hashlib.sha256(f"{upright.width}x{upright.height}:".encode() + upright.tobytes()).hexdigest()


def named_share(text: str, there: frozenset[str]) -> float:
    """Mean over the sentence's mentions of COCO objects: 1 if the object is there, -1 if not; 0 if it names none."""
    mentions = find_mentions(text)
    return sum(1 if mention.object in there else -1 for mention in mentions) / len(mentions) if mentions else 0.0


def object_scores(detections: Mapping[str, frozenset[str]], counters: Counter[str]) -> CachedScorer:
    """`Scores` by the detected objects of each image, by pixel digest.

    An image without detections holds nothing: whatever a sentence names counts as -1. Such images are counted as
    `images_without_detections`.
    """
    unknown: set[str] = set()

    def rate(images: Sequence[Image.Image], texts: Sequence[Sequence[str]]) -> list[list[float | None]]:
        scores: list[list[float | None]] = []
        for image, some in zip(images, texts, strict=True):
            digest = pixel_digest(image)
            if digest not in detections and digest not in unknown:
                unknown.add(digest)
                counters["images_without_detections"] += 1
            there = detections.get(digest, frozenset())
            scores.append([named_share(text, there) for text in some])
        return scores

    return CachedScorer(rate, counters, "texts_scored_objects")
