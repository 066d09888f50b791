"""CHAIR: objects that a caption mentions and its image does not hold (Rohrbach et al. 2018, arXiv 1809.02156).

CHAIRi = hallucinated mentions / all mentions; CHAIRs = captions with a hallucination / captions (the papers' "sentence" is the
whole caption); Recall = true objects mentioned / true objects. Every mention counts, the longest phrase wins ("hot dog" is no
dog), and what is true is the union of the annotated instances and the objects of the reference captions, as in the reference
implementation. Unlike it, nothing is downloaded, a caption without objects divides by nothing, and mentions have offsets.
Always read Recall and length beside CHAIR: a short caption lowers CHAIR for free.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from tasks.core.benchmarks.mentions import WORD, Mention, find_mentions
from tasks.core.metrics import Ratio

METRICS = ("chair_s", "chair_i", "recall", "length")
COUNTS = ("hallucinated", "mentioned", "recalled", "present", "words")


class ChairItem(NamedTuple):
    """The counts of one caption."""

    hallucinated: int
    mentioned: int
    recalled: int
    present: int
    words: int


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
        words=len(WORD.findall(text.lower())),
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
