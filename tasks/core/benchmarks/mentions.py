"""Which of COCO's objects a text names, and where: the words that CHAIR counts, rewards look for and annotations list."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from tasks.core.benchmarks.coco_words import ANIMALS, LONGEST, PHRASES, YOUNG_OR_ADULT, singular

WORD = re.compile(r"[a-z0-9]+(?:'[a-z]+)?")


class Mention(NamedTuple):
    """A COCO object that a text names: `text == whole[start:end]`."""

    text: str
    object: str
    start: int
    end: int


def find_mentions(text: str) -> list[Mention]:
    """Every mention of a COCO object in `text`, in order, longest phrase first."""
    lowered = text.lower()
    tokens = [(match.group(), match.start(), match.end()) for match in WORD.finditer(lowered)]
    stems = [singular(word) for word, _, _ in tokens]
    mentions: list[Mention] = []
    at = 0
    while at < len(stems):
        size = _longest_phrase(stems, at)
        if size:
            category = PHRASES[tuple(stems[at : at + size])]
            if category is not None:
                start, end = tokens[at][1], tokens[at + size - 1][2]
                mentions.append(Mention(text[start:end], category, start, end))
        at += max(size, 1)
    return _without_young_animals(mentions, lowered)


def _longest_phrase(stems: Sequence[str], at: int) -> int:
    for size in range(min(LONGEST, len(stems) - at), 0, -1):
        if tuple(stems[at : at + size]) in PHRASES:
            return size
    return 0


def _without_young_animals(mentions: list[Mention], lowered: str) -> list[Mention]:
    """Drop the "baby" of "baby elephant": it names no person."""
    kept = []
    for index, mention in enumerate(mentions):
        follower = mentions[index + 1] if index + 1 < len(mentions) else None
        if (
            follower is not None
            and mention.text.lower() in YOUNG_OR_ADULT
            and follower.object in ANIMALS
            and not lowered[mention.end : follower.start].strip()
        ):
            continue
        kept.append(mention)
    return kept
