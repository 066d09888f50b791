"""How often captions of the demo world hallucinate and how well a score separates; for this world's wording only.

The benchmark proper is CHAIR over COCO's synonyms; this one guards the training of the demo's models.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from tasks.core.demo.glyphs import GLYPHS

_NAMES = re.compile(r"\b(" + "|".join(sorted(GLYPHS, key=len, reverse=True)) + r")s?\b")


class Hallucination(NamedTuple):
    """CHAIR's figures over a list of captions, all shares in [0, 1] but the last two."""

    chair_s: float  # captions with at least one invented object
    chair_i: float  # invented among all mentions, a category counted once a caption
    recall: float  # true objects named among all true objects
    sentences: float  # mean a caption
    n: int  # captions


def named_categories(text: str) -> list[str]:
    """Categories named in a text, in order, repeats kept; longest name first, so a hot dog is no dog."""
    return _NAMES.findall(text.lower())


def split_sentences(text: str) -> list[str]:
    """Sentences of this world: they all end with a full stop, and none holds another."""
    return [part.strip() + "." for part in text.split(".") if part.strip()]


def hallucination(captions: Sequence[str], present: Sequence[Sequence[str]]) -> Hallucination:
    """Compare captions with what is truly there, image by image."""
    with_invention = invented = mentions = recalled = there = sentences = 0
    for text, categories in zip(captions, present, strict=True):
        named, true = set(named_categories(text)), set(categories)
        with_invention += bool(named - true)
        invented += len(named - true)
        mentions += len(named)
        recalled += len(named & true)
        there += len(true)
        sentences += len(split_sentences(text))
    n = len(captions)
    return Hallucination(with_invention / n, invented / max(mentions, 1), recalled / there, sentences / n, n)
