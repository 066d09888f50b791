"""The requests that a search yields, one function for each, and the candidates it gets back.

A search is a generator: it yields a request, is sent the answer and goes on. The functions here wrap one request each, so
that a search reads `candidates = yield from propose(...)`.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")

SENTENCE, ANSWER = "sentence", "answer"  # where a continuation ends; any other text ends it where that text appears


@dataclass(frozen=True)
class Candidate:
    """A text that the policy proposes: a sentence, a stage, or a whole answer."""

    text: str  # stripped; empty if the policy ended at once
    temperature: float
    ended: bool  # the policy ended its answer after it
    drawn: int  # tokens drawn for it, those past its end included
    handle: Any = field(default=None, compare=False, repr=False)  # opaque: how the engine continues after this text
    space: str = field(default=" ", compare=False)  # white space between the answer before and the text


@dataclass(frozen=True)
class Propose:
    """Draw continuations of the answer, one for each temperature (0: greedy). Answered with list[Candidate]."""

    after: Candidate | None  # None: from the prompt
    temperatures: tuple[float, ...]
    until: str  # SENTENCE, ANSWER, or a text such as "</CAPTION>", which stays in the candidate
    max_tokens: int
    keep: bool = True  # whether a candidate may later be continued, split, or valued by the policy's hidden states


@dataclass(frozen=True)
class Force:
    """Continue the answer with a given text, which is read and not drawn. Answered with a Candidate."""

    after: Candidate | None
    text: str
    space: str = " "  # between the answer before and the text


@dataclass(frozen=True)
class SplitSentences:
    """Split a whole answer into sentences, each of which can be continued. Answered with list[Candidate]."""

    answer: Candidate


@dataclass(frozen=True)
class Score:
    """Score texts against the image: cosines. Answered with list[float | None]; None: the text can't be scored."""

    texts: tuple[str, ...]
    before: tuple[str, ...] = ()  # the answer before each text, for rewards that depend on it; (): nothing before any

    @property
    def items(self) -> list[tuple[str, str]]:
        """(the answer before, text) of each."""
        return list(zip(self.before or [""] * len(self.texts), self.texts, strict=True))


@dataclass(frozen=True)
class Value:
    """Estimate V of candidates, each after the text before it. Answered with list[float]."""

    items: tuple[tuple[str, Candidate], ...]  # (text so far, candidate)


@dataclass(frozen=True)
class Complete:
    """Share of the objects detected in the image that an answer names, 0 to 1. Answered with list[float]; no object: 0."""

    items: tuple[tuple[str, str], ...]  # (answer so far, text that follows it)


@dataclass(frozen=True)
class Ask:
    """Ask the policy another question about the same image, answered greedily. Answered with str."""

    question: str
    max_tokens: int


@dataclass(frozen=True)
class Generate:
    """Write a whole answer by one of transformers' own decoding methods. Answered with a Candidate."""

    method: str  # beam, diverse_beam, contrastive
    options: tuple[tuple[str, float], ...]
    max_tokens: int


Request: TypeAlias = Propose | Force | SplitSentences | Score | Value | Complete | Ask | Generate
Search: TypeAlias = Generator[Request, Any, T]  # yields requests, is sent their answers, returns a T


def propose(
    after: Candidate | None, temperatures: Sequence[float], *, max_tokens: int, until: str = SENTENCE, keep: bool = True
) -> Search[list[Candidate]]:
    """Draw continuations, one for each temperature: `candidates = yield from propose(...)`."""
    candidates: list[Candidate] = yield Propose(after, tuple(temperatures), until, max_tokens, keep)
    return candidates


def force(after: Candidate | None, text: str, *, space: str = " ") -> Search[Candidate]:
    """Continue the answer with a given text, after white space."""
    forced: Candidate = yield Force(after, text, space)
    return forced


def split_answer(answer: Candidate) -> Search[list[Candidate]]:
    """Split a whole answer into its sentences."""
    sentences: list[Candidate] = yield SplitSentences(answer)
    return sentences


def score(texts: Sequence[str], before: Sequence[str] = ()) -> Search[list[float | None]]:
    """Score texts against the image; no request if there are none.

    Args:
        texts: what to score.
        before: the answer before each text, which a completeness reward reads; nothing if left out.

    Raises:
        ValueError: texts and `before` differ in number.
    """
    if before and len(before) != len(texts):
        raise ValueError(f"{len(texts)} texts and {len(before)} texts before them: want one for each, or none")
    if not texts:
        return []
    scores: list[float | None] = yield Score(tuple(texts), tuple(before) if any(before) else ())
    return scores


def value(items: Sequence[tuple[str, Candidate]]) -> Search[list[float]]:
    """Estimate V of (text so far, candidate) pairs; no request if there are none."""
    if not items:
        return []
    values: list[float] = yield Value(tuple(items))
    return values


def complete(items: Sequence[tuple[str, str]]) -> Search[list[float]]:
    """Share of the image's detected objects that (answer so far, text after it) name; no request if there are none."""
    if not items:
        return []
    shares: list[float] = yield Complete(tuple(items))
    return shares


def ask(question: str, *, max_tokens: int) -> Search[str]:
    """Ask the policy another question about the image."""
    text: str = yield Ask(question, max_tokens)
    return text


def generate(method: str, options: Mapping[str, float], *, max_tokens: int) -> Search[Candidate]:
    """Write a whole answer by one of transformers' own methods."""
    candidate: Candidate = yield Generate(method, tuple(sorted(options.items())), max_tokens)
    return candidate
