"""What a search is given and what it leaves behind: callables in, a complete trace out.

A search never sees a model, an image or a cache. It works on `slots` (one caption in the making each, numbered from 0), many at
once so that the callables can batch, and one slot's result never depends on another's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tasks.core.text import words


@dataclass(frozen=True)
class Candidate:
    """A sentence (or a whole answer) that the policy proposes."""

    text: str  # stripped; empty if the policy ended at once
    temperature: float
    ended: bool  # the policy ended its answer after it
    drawn: int  # tokens drawn for it
    handle: int = -1  # the proposer's own: which row to go on from


# Next sentences. The argument names the slots that go on and the candidate each one kept last (None at the start); the
# answer has the candidates of each of them. Slots that are not named are finished and never asked for again.
Propose = Callable[[Mapping[int, Candidate | None]], dict[int, list[Candidate]]]

# Whole answers of every named slot.
Answer = Callable[[Sequence[int]], dict[int, list[Candidate]]]

# The scorer's cosine of (slot, sentence) pairs, in order; None where a sentence can't be scored.
ScoreSentences = Callable[[Sequence[tuple[int, str]]], list[float | None]]

# The value model's estimate of (slot, text so far, sentence) triples, in order.
ValueSentences = Callable[[Sequence[tuple[int, str, str]]], list[float]]


@dataclass(frozen=True)
class TraceRow:
    """One candidate of one step, as `search_trace` stores it."""

    step: int
    candidate: int
    proposal: Candidate
    score: float | None = None
    value: float | None = None
    chosen: bool = False
    stop: str | None = None


@dataclass
class Found:
    """The caption of one slot and how it came about."""

    sentences: list[str] = field(default_factory=list)
    trace: list[TraceRow] = field(default_factory=list)
    stop_reason: str = ""

    @property
    def text(self) -> str:
        """The caption."""
        return " ".join(self.sentences)

    def stop(self, reason: str) -> None:
        """End here; the reason also stands on the last row of the trace."""
        self.stop_reason = reason
        if self.trace:
            last = self.trace[-1]
            self.trace[-1] = TraceRow(
                last.step, last.candidate, last.proposal, last.score, last.value, last.chosen, reason
            )


def fresh(candidates: Sequence[Candidate], said: Sequence[str]) -> list[int]:
    """Indices of candidates that say something, not said before, and not twice: the first of equals stays."""
    seen = {tuple(words(sentence)) for sentence in said}
    indices = []
    for index, candidate in enumerate(candidates):
        key = tuple(words(candidate.text))
        if key and key not in seen:
            seen.add(key)
            indices.append(index)
    return indices
