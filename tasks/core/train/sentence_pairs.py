"""Pairs of next sentences after one and the same answer so far (SENTINEL, arXiv 2507.12455), from a search's trace.

A step of a sentence-level search draws candidates after the sentences that it kept. Of a step's candidates that are called
true one is paired with one that is called hallucinated; the answer before both is the same, so what a pair teaches is the
choice of this sentence. Pure: what a candidate is called comes in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from storage.schema import SearchStep
from tasks.core.reward.verdicts import Verdict


class NotSentenceBySentence(ValueError):
    """A trace whose steps' chosen candidates are not, one after another, its caption."""


class TraceStep(NamedTuple):
    """A step of a search: the answer so far, and what was proposed after it."""

    prefix: str  # "" before the first sentence
    space: str  # white space between the prefix and what follows
    step: int
    candidates: tuple[SearchStep, ...]  # new sentences, each text once


class PairedSentences(NamedTuple):
    """A true and a hallucinated candidate of a step."""

    step: TraceStep
    chosen: SearchStep
    rejected: SearchStep


def trace_steps(caption: str, rows: Sequence[SearchStep]) -> Iterator[TraceStep]:
    """The steps of a caption's trace, with the answer so far before each.

    Candidates without text (the end) and those that repeat a sentence of the answer so far are left out.

    Args:
        caption: the text that the search ended with.
        rows: its trace, all of it, in any order.

    Raises:
        NotSentenceBySentence: chosen candidates that are not the caption's parts in order.
    """
    at, kept = 0, list[str]()
    ordered = sorted(rows, key=lambda row: (row.step, row.candidate))
    for step, group in groupby(ordered, key=lambda row: row.step):
        candidates = list(group)
        chosen = [row.text for row in candidates if row.chosen and row.text]
        start = caption.find(chosen[0], at) if len(chosen) == 1 else at
        if len(chosen) > 1 or start < 0 or caption[at:start].strip():
            raise NotSentenceBySentence(
                f"step {step} of strategy {candidates[0].strategy} does not continue its caption"
            )
        new = {row.text: row for row in reversed(candidates) if row.text and row.text not in kept}
        space = (caption[at:start] or " ") if at else ""
        listed = tuple(sorted(new.values(), key=lambda row: row.candidate))
        yield TraceStep(caption[:at], space, step, listed)
        if chosen:
            at, kept = start + len(chosen[0]), [*kept, chosen[0]]
    if caption[at:].strip():
        raise NotSentenceBySentence(f"the caption has text after the last step of strategy {rows[0].strategy}")


def pairs_of(step: TraceStep, verdict_of: Callable[[SearchStep], Verdict], *, most: int) -> list[PairedSentences]:
    """Up to `most` pairs of a step; each candidate is in one at most.

    The true sentence that the search kept comes first, then the others in the order of the candidates, the coldest first:
    what the policy is likeliest to write is what it has to keep or to unlearn.
    """
    verdicts = {row.candidate: verdict_of(row) for row in step.candidates}
    true = [row for row in step.candidates if verdicts[row.candidate] is Verdict.TRUE]
    wrong = [row for row in step.candidates if verdicts[row.candidate] is Verdict.HALLUCINATED]
    true.sort(key=lambda row: (not row.chosen, row.temperature, row.candidate))
    wrong.sort(key=lambda row: (row.temperature, row.candidate))
    return [PairedSentences(step, *both) for both in zip(true[:most], wrong[:most], strict=False)]
