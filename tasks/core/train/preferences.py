"""From ranked answers to preferences: of every prompt the best answer against the worst.

The pairs that direct preference optimisation learns from (Rafailov et al., arXiv 2305.18290), without a judge: what an answer
is worth was measured before.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple


class WorthyAnswer(NamedTuple):
    """An answer and what it is worth."""

    sample_id: str
    rollout_id: str
    text: str
    worth: float  # larger is better; only compared within a prompt


class Pair(NamedTuple):
    """Two answers to one prompt."""

    chosen: WorthyAnswer
    rejected: WorthyAnswer

    @property
    def gap(self) -> float:
        """How much more the better one is worth."""
        return self.chosen.worth - self.rejected.worth


class Pairs(NamedTuple):
    """The pairs, at most one a prompt, and why other prompts gave none."""

    pairs: list[Pair]
    skipped: Mapping[str, int]  # prompts by reason: one_answer, same_text, tie, small_gap


def best_against_worst(answers: Iterable[WorthyAnswer], *, min_gap: float = 0.0) -> Pairs:
    """Pair the best and the worst answer of every prompt; the order of `answers` doesn't matter.

    Args:
        answers: of any number of prompts.
        min_gap: pairs whose worth differs less are left out, in units of worth.

    Returns:
        Pairs by sample_id. A prompt gives none if it has one answer only, if all its answers read the same, if they are all
        worth the same, or if the gap is too small. Of equally good answers the one with the first rollout_id counts.

    Raises:
        ValueError: a worth that is no finite number.
    """
    by_prompt: dict[str, list[WorthyAnswer]] = {}
    for answer in answers:
        if not math.isfinite(answer.worth):
            raise ValueError(f"answer {answer.rollout_id} is worth {answer.worth}: want a finite number")
        by_prompt.setdefault(answer.sample_id, []).append(answer)
    pairs: list[Pair] = []
    skipped: Counter[str] = Counter()
    for _, of_prompt in sorted(by_prompt.items()):
        of_prompt.sort(key=lambda answer: answer.rollout_id)
        # `max` and `min` keep the first of equals.
        pair = Pair(max(of_prompt, key=_worth), min(of_prompt, key=_worth))
        why = _why_not(of_prompt, pair, min_gap)
        if why is None:
            pairs.append(pair)
        else:
            skipped[why] += 1
    return Pairs(pairs, skipped)


def _worth(answer: WorthyAnswer) -> float:
    return answer.worth


def _why_not(answers: list[WorthyAnswer], pair: Pair, min_gap: float) -> str | None:
    """Why these answers give no pair."""
    if len(answers) == 1:
        return "one_answer"
    if len({answer.text for answer in answers}) == 1:
        return "same_text"
    if not pair.gap > 0:
        return "tie"
    if pair.chosen.text == pair.rejected.text:
        return "same_text"
    return "small_gap" if pair.gap < min_gap else None
