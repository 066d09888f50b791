"""What a search asks for and what it leaves behind.

A search writes one answer about one image. It is a generator: it yields requests (say, score, value ...), is sent the answers,
and returns what it `Found` with a complete trace. It never sees a model, an image or a cache, and it runs alone; whoever runs
many of them (`tasks.core.engine.scheduler`) serves their requests in batches, so a search can't depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias, TypeVar

from tasks.core.text import words

T = TypeVar("T")

SENTENCE, ANSWER = "sentence", "answer"  # what a continuation may end with; any other text ends it where it appears


@dataclass(frozen=True)
class Candidate:
    """What the policy proposes: a sentence, a stage, or a whole answer."""

    text: str  # stripped; empty if the policy ended at once
    temperature: float
    ended: bool  # the policy ended its answer after it
    drawn: int  # tokens drawn for it, those past its end included
    place: Any = field(default=None, compare=False, repr=False)  # the engine's own: where to go on from


@dataclass(frozen=True)
class Say:
    """Continuations of the answer, one a temperature (0: greedy). Answered with list[Candidate]."""

    after: Candidate | None  # None: from the prompt
    temperatures: tuple[float, ...]
    until: str  # SENTENCE, ANSWER, or a text as "</CAPTION>", which is kept
    max_tokens: int
    keep: bool = True  # whether any of them may be gone on from, split or valued by the policy's states


@dataclass(frozen=True)
class Write:
    """The answer goes on with a given text, read and not drawn. Answered with a Candidate."""

    after: Candidate | None
    text: str


@dataclass(frozen=True)
class Split:
    """The sentences of a whole answer, each with its place. Answered with list[Candidate]."""

    answer: Candidate


@dataclass(frozen=True)
class Score:
    """The scorer's cosine of texts with the image. Answered with list[float | None]; None: can't be scored."""

    texts: tuple[str, ...]


@dataclass(frozen=True)
class Value:
    """The value model's estimate of candidates, each after what was said before it. Answered with list[float]."""

    items: tuple[tuple[str, Candidate], ...]  # (text so far, candidate)


@dataclass(frozen=True)
class Reply:
    """The policy's greedy answer to another question about the same image. Answered with str."""

    question: str
    max_tokens: int


@dataclass(frozen=True)
class Generate:
    """A whole answer by one of transformers' own decoding methods. Answered with a Candidate."""

    method: str  # beam, diverse_beam, contrastive
    options: tuple[tuple[str, float], ...]
    max_tokens: int


Request: TypeAlias = Say | Write | Split | Score | Value | Reply | Generate
Ask: TypeAlias = Generator[Request, Any, T]


def say(
    after: Candidate | None, temperatures: Sequence[float], *, max_tokens: int, until: str = SENTENCE, keep: bool = True
) -> Ask[list[Candidate]]:
    """Ask for continuations, one a temperature: `candidates = yield from say(...)`."""
    candidates: list[Candidate] = yield Say(after, tuple(temperatures), until, max_tokens, keep)
    return candidates


def write(after: Candidate | None, text: str) -> Ask[Candidate]:
    """Let the answer go on with a given text."""
    written: Candidate = yield Write(after, text)
    return written


def split(answer: Candidate) -> Ask[list[Candidate]]:
    """Ask for the sentences of a whole answer."""
    sentences: list[Candidate] = yield Split(answer)
    return sentences


def score(texts: Sequence[str]) -> Ask[list[float | None]]:
    """Ask for the scorer's cosines; nothing is asked for nothing."""
    if not texts:
        return []
    scores: list[float | None] = yield Score(tuple(texts))
    return scores


def value(items: Sequence[tuple[str, Candidate]]) -> Ask[list[float]]:
    """Ask for values of (text so far, candidate) pairs; nothing is asked for nothing."""
    if not items:
        return []
    values: list[float] = yield Value(tuple(items))
    return values


def reply(question: str, *, max_tokens: int) -> Ask[str]:
    """Ask the policy something else about the image."""
    text: str = yield Reply(question, max_tokens)
    return text


def generate(method: str, options: Mapping[str, float], *, max_tokens: int) -> Ask[Candidate]:
    """Ask for an answer by one of transformers' own methods."""
    candidate: Candidate = yield Generate(method, tuple(sorted(options.items())), max_tokens)
    return candidate


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
    phase: str | None = None  # which part of the search, where it has several


@dataclass
class Found:
    """One answer and how it came about."""

    sentences: list[str] = field(default_factory=list)
    trace: list[TraceRow] = field(default_factory=list)
    stop_reason: str = ""

    @property
    def text(self) -> str:
        """The answer."""
        return " ".join(self.sentences)

    def note(
        self,
        step: int,
        candidates: Sequence[Candidate],
        judged: Mapping[int, tuple[float | None, float | None]],
        chosen: int | None,
        phase: str | None = None,
    ) -> None:
        """Write down a step: all its candidates, their (score, value) by index, and which one was chosen.

        The trace outlives the search, so it keeps no places: they hold the engine's memory.
        """
        for index, candidate in enumerate(candidates):
            one_score, one_value = judged.get(index, (None, None))
            proposal = replace(candidate, place=None)
            self.trace.append(
                TraceRow(step, index, proposal, one_score, one_value, chosen=index == chosen, phase=phase)
            )

    def stop(self, reason: str) -> Found:
        """End here; the reason also stands on the last row of the trace."""
        self.stop_reason = reason
        if self.trace:
            self.trace[-1] = replace(self.trace[-1], stop=reason)
        return self


@dataclass(frozen=True)
class Settings:
    """What a strategy may be told; each reads what it needs."""

    temperatures: tuple[float, ...]  # one a candidate, greedy (0) first
    stop: Literal["reward", "vote", "chosen", "value"] = "reward"
    margin: float = float("-inf")  # the score that `reward` asks for: tau of the rewards
    weak_below: float = float("-inf")  # vimar: a sentence whose guide is lower is replaced
    redundancy: float = 0.0  # taken off a candidate's guide for what it repeats
    by: Literal["score", "value", "judge"] | None = None  # who picks whole answers; None: the strategy's own default
    max_sentences: int = 20
    max_sentence_tokens: int = 128
    max_new_tokens: int = 1024
    published: bool = False  # as the released code does it, defects included
    options: Mapping[str, float | int | str | bool] = field(default_factory=dict)  # the strategy's own


@dataclass(frozen=True)
class Task:
    """One answer to be written."""

    prompt: str
    settings: Settings


Search: TypeAlias = Callable[[Task], Ask[Found]]


@dataclass(frozen=True)
class Strategy:
    """A search with what it needs; `needs` names scorer, margin (the rewards' tau), value, weak (vimar's margin)."""

    search: Search
    needs: Callable[[Settings], frozenset[str]]


def strategy(*needs: str) -> Callable[[Search], Strategy]:
    """Make a strategy of a search that always needs the same: `@strategy("scorer")`."""
    return lambda search: Strategy(search, lambda settings: frozenset(needs))


def run_alone(search: Ask[Found], answer: Callable[[Request], Any]) -> Found:
    """Run one search, each request answered by a callable: for tests and for other runners."""
    request = next(search)
    while True:
        try:
            request = search.send(answer(request))
        except StopIteration as done:
            found: Found = done.value
            return found


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
