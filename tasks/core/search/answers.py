"""Whole-answer baselines: greedy, and best-of-n by the mean score of the answer's sentences."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.core.search.contract import Answer, Candidate, Found, ScoreSentences, TraceRow
from tasks.core.text import split_sentences


def greedy(answer: Answer, *, slots: Sequence[int]) -> dict[int, Found]:
    """The policy's likeliest answer for every slot: the first of `answer`'s candidates."""
    found = {}
    for slot, (candidate, *_) in answer(slots).items():
        one = Found([candidate.text] if candidate.text else [], [TraceRow(0, 0, candidate, chosen=True)])
        one.stop(_how(candidate))
        found[slot] = one
    return found


def best_of_n(answer: Answer, score: ScoreSentences, *, slots: Sequence[int]) -> dict[int, Found]:
    """The candidate whose sentences score best on average; an empty answer never wins over another."""
    answers = answer(slots)
    asked = [
        (slot, index, sentence.text)
        for slot, candidates in answers.items()
        for index, candidate in enumerate(candidates)
        for sentence in split_sentences(candidate.text)
    ]
    scores: dict[tuple[int, int], list[float]] = {}
    for (slot, index, _), value in zip(asked, score([(slot, text) for slot, _, text in asked]), strict=True):
        if value is not None:
            scores.setdefault((slot, index), []).append(value)
    found = {}
    for slot, candidates in answers.items():
        means = [_mean(scores.get((slot, index), [])) for index in range(len(candidates))]
        best = max(range(len(candidates)), key=lambda i: (float("-inf") if means[i] is None else means[i], -i))
        trace = [TraceRow(0, i, c, means[i], chosen=i == best) for i, c in enumerate(candidates)]
        one = Found([candidates[best].text] if candidates[best].text else [], trace)
        one.stop(_how(candidates[best]))
        found[slot] = one
    return found


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _how(candidate: Candidate) -> str:
    return "end" if candidate.ended else "length"
