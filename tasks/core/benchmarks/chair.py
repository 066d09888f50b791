"""CHAIR: objects that a caption mentions and its image does not hold (Rohrbach et al. 2018, arXiv 1809.02156).

CHAIRi = hallucinated mentions / all mentions; CHAIRs = captions with a hallucination / captions (the papers' "sentence" is the
whole caption); Recall = true objects mentioned / true objects. Every mention counts, the longest phrase wins ("hot dog" is no
dog), and what is true is the union of the annotated instances and the objects of the reference captions, as in the reference
implementation. Unlike it, nothing is downloaded, a caption without objects divides by nothing, and mentions have offsets.
Always read Recall and length beside CHAIR: a short caption lowers CHAIR for free.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from tasks.core.benchmarks.coco_words import ANIMALS, LONGEST, PHRASES, YOUNG_OR_ADULT, singular
from tasks.core.metrics import Ratio

METRICS = ("chair_s", "chair_i", "recall", "length")
COUNTS = ("hallucinated", "mentioned", "recalled", "present", "words")

_WORD = re.compile(r"[a-z0-9]+(?:'[a-z]+)?")


class Mention(NamedTuple):
    """A COCO object that a text names: `text == whole[start:end]`."""

    text: str
    object: str
    start: int
    end: int


class ChairItem(NamedTuple):
    """The counts of one caption."""

    hallucinated: int
    mentioned: int
    recalled: int
    present: int
    words: int


def find_mentions(text: str) -> list[Mention]:
    """Every mention of a COCO object in `text`, in order, longest phrase first."""
    lowered = text.lower()
    found = [(match.group(), match.start(), match.end()) for match in _WORD.finditer(lowered)]
    stems = [singular(word) for word, _, _ in found]
    mentions: list[Mention] = []
    at = 0
    while at < len(stems):
        size = _longest_phrase(stems, at)
        if size:
            category = PHRASES[tuple(stems[at : at + size])]
            if category is not None:
                start, end = found[at][1], found[at + size - 1][2]
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


def true_objects(objects: Iterable[str], captions: Iterable[str]) -> set[str]:
    """What is truly in an image: annotated instances and what the reference captions mention."""
    truth = set(objects)
    for caption in captions:
        truth.update(mention.object for mention in find_mentions(caption))
    return truth


def chair_item(text: str, truth: set[str]) -> tuple[ChairItem, list[tuple[Mention, bool]]]:
    """(counts, mentions with a flag: hallucinated) of one caption."""
    judged = [(mention, mention.object not in truth) for mention in find_mentions(text)]
    named = {mention.object for mention, _ in judged}
    counts = ChairItem(
        hallucinated=sum(wrong for _, wrong in judged),
        mentioned=len(judged),
        recalled=len(named & truth),
        present=len(truth),
        words=len(_WORD.findall(text.lower())),
    )
    return counts, judged


def chair_ratios(items: Sequence[ChairItem]) -> dict[str, Ratio]:
    """The four metrics of METRICS as ratios over items [N]."""
    counts = np.asarray(items, dtype=np.float64).reshape(-1, len(COUNTS))
    hallucinated, mentioned, recalled, present, words = counts.T
    ones = np.ones(len(counts))
    return {
        "chair_s": Ratio((hallucinated > 0).astype(np.float64), ones),
        "chair_i": Ratio(hallucinated, mentioned),
        "recall": Ratio(recalled, present),
        "length": Ratio(words, ones),
    }
