"""Whether what a sentence names was found in its image by a detector: the reward `objects`.

Images are known by their pixels, for a search knows no image ids, and the same picture may come under several.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

from PIL import Image

from tasks.core.benchmarks.mentions import find_mentions
from tasks.core.models.remembered import Remembered


def pixel_digest(image: Image.Image) -> str:
    """SHA-256 of an image's size and its decoded RGB pixels, whatever the file was."""
    upright = image.convert("RGB")
    return hashlib.sha256(f"{upright.width}x{upright.height}:".encode() + upright.tobytes()).hexdigest()


def named_share(text: str, there: frozenset[str]) -> float:
    """Mean over the sentence's mentions of COCO objects: 1 if the object is there, -1 if not; 0 if it names none."""
    mentions = find_mentions(text)
    return sum(1 if one.object in there else -1 for one in mentions) / len(mentions) if mentions else 0.0


def object_scores(found: Mapping[str, frozenset[str]], counters: Counter[str]) -> Remembered:
    """`Scores` by lists of objects, `found` by pixel digest.

    For an image that no list was made for, nothing is there: whatever a sentence names counts as -1. Such images are counted
    as `images_without_detections`.
    """
    unknown: set[str] = set()

    def rate(images: Sequence[Image.Image], texts: Sequence[Sequence[str]]) -> list[list[float | None]]:
        scores: list[list[float | None]] = []
        for image, some in zip(images, texts, strict=True):
            digest = pixel_digest(image)
            if digest not in found and digest not in unknown:
                unknown.add(digest)
                counters["images_without_detections"] += 1
            there = found.get(digest, frozenset())
            scores.append([named_share(text, there) for text in some])
        return scores

    return Remembered(rate, counters, "texts_scored_objects")
