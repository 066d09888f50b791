"""Accuracy of answers to questions: how many conclusions are right, over all questions and over each kind of them.

Only the conclusion of a staged answer is judged; how many answers are staged, and how long they are, stand beside it. Whether
one is right is decided elsewhere (`tasks.core.data.questions.is_right`): here answers are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tasks.core.metrics import Ratio

BENCHMARK = "vqa"
ACCURACY, STAGED, LENGTH = "accuracy", "staged", "length"


class AnswerItem(NamedTuple):
    """One answer: is its conclusion right, is it in four whole stages, the question's kind, its words without tags."""

    right: bool
    staged: bool
    kind: str
    words: int


def metric_of(kind: str) -> str:
    """What the accuracy on one kind of question is called."""
    return f"{ACCURACY}_{kind}"


def answer_ratios(items: Sequence[AnswerItem]) -> dict[str, Ratio]:
    """accuracy, staged (shares), accuracy_KIND where there are several kinds, length (words), as ratios over items [N]."""
    right = np.array([item.right for item in items], np.float64)
    ones = np.ones(len(items))
    ratios = {
        ACCURACY: Ratio(right, ones),
        STAGED: Ratio(np.array([item.staged for item in items], np.float64), ones),
    }
    kinds = sorted({item.kind for item in items})
    for kind in kinds if len(kinds) > 1 else []:
        of_kind = np.array([item.kind == kind for item in items], np.float64)
        ratios[metric_of(kind)] = Ratio(right * of_kind, of_kind)
    ratios[LENGTH] = Ratio(np.array([item.words for item in items], np.float64), ones)
    return ratios
