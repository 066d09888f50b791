"""A policy, a scorer and a value model made of arithmetic, for searches: no weights, no images.

A sentence is "Say N."; what is proposed depends on slot, depth, the sentence before, and the candidate's index.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from tasks.core.search.contract import (
    ANSWER,
    SENTENCE,
    Candidate,
    Found,
    Generate,
    Reply,
    Request,
    Say,
    Score,
    Settings,
    Split,
    Strategy,
    Task,
    Value,
    Write,
    run_alone,
)  # fmt: skip
from tasks.core.search.stages import STAGES, closing, opening
from tasks.core.text import split_sentences


def number(text: str) -> int:
    return int(text.removesuffix(".").split()[-1])


def score_of(text: str) -> float | None:
    """Small numbers score high; 13 can't be scored."""
    return None if number(text) == 13 else 1 - number(text) / 10


def value_of(text: str) -> float:
    """Numbers near 11 are worth most, whatever they score."""
    return -abs(number(text) - 11) / 11


def numbers(slot: int = 0, ends_after: int = 5) -> Callable[[Say], list[Candidate]]:
    """Candidate i says last * 3 + 5 * i + slot + 1, modulo 23; the greedy one ends the answer after `ends_after`.

    A whole answer begins as the sentence would and goes on as the greedy one does. A place is the depth: sentences so far.
    """

    def after(base: int, i: int) -> int:
        return (3 * base + 5 * i + slot + 1) % 23

    def say(request: Say) -> list[Candidate]:
        depth = request.after.place if request.after else 0
        base = number(request.after.text) if request.after else 0
        candidates = []
        for i in range(len(request.temperatures)):
            said = [after(base, i)]
            while request.until == ANSWER and len(said) < 3 + i % 2:
                said.append(after(said[-1], 0))
            ended = request.until == ANSWER or (i == 0 and depth >= ends_after)
            text = " ".join(f"Say {one}." for one in said)
            candidates.append(Candidate(text, i / 10, ended, 3 * len(said), place=depth + len(said)))
        return candidates

    return say


def tagged() -> Callable[[Say], list[Candidate]]:
    """A policy that writes stages: candidate i says `3 * asked + 5 * i`, modulo 23, where `asked` counts what was asked."""
    asked = 0

    def say(request: Say) -> list[Candidate]:
        nonlocal asked
        asked += 1
        (stage,) = [stage for stage in STAGES if closing(stage) == request.until]
        texts = [
            f"{opening(stage)}Say {(3 * asked + 5 * i) % 23}.{request.until}" for i in range(len(request.temperatures))
        ]
        return [Candidate(text, 0.6, False, 5, place=asked) for text in texts]

    return say


def script(*steps: list[Candidate]) -> Callable[[Say], list[Candidate]]:
    """Say these lists, one a request."""
    left = iter(steps)
    return lambda request: next(left)


def said(*texts: str, ended: bool = False) -> list[Candidate]:
    return [Candidate(text, 0.0, ended, 1, place=1) for text in texts]


def ending(*texts: str) -> list[Candidate]:
    """Candidates of which the empty ones end the answer."""
    return [Candidate(text, 0.0, ended=not text, drawn=1, place=1) for text in texts]


@dataclass
class World:
    """Answers requests, and keeps them."""

    say: Callable[[Say], list[Candidate]]
    score: Callable[[str], float | None] = score_of
    value: Callable[[str], float] = value_of
    judge: Callable[[str], str] = lambda question: ""
    asked: list[Request] = field(default_factory=list)

    def __call__(self, request: Request) -> Any:
        self.asked.append(request)
        if isinstance(request, Say):
            return self.say(request)
        if isinstance(request, Score):
            return [self.score(text) for text in request.texts]
        if isinstance(request, Value):
            return [self.value(candidate.text) for _, candidate in request.items]
        return self._other(request)

    def _other(self, request: Write | Split | Reply | Generate) -> Any:
        if isinstance(request, Reply):
            return self.judge(request.question)
        if isinstance(request, Generate):
            return Candidate("Say 1. Say 4.", 0.0, True, 8)
        if isinstance(request, Write):
            before = request.after.place if request.after else 0
            return Candidate(request.text, 0.0, False, 0, place=before + len(split_sentences(request.text)))
        parts = split_sentences(request.answer.text)
        return [Candidate(one.text, 0.0, False, 0, place=i + 1) for i, one in enumerate(parts)]

    def of(self, kind: type) -> list[Any]:
        """The requests of one kind, in order."""
        return [request for request in self.asked if isinstance(request, kind)]


def by(table: dict[str, Any]) -> Callable[[str], Any]:
    return table.__getitem__


def run(strategy: Strategy, world: World, *, width: int = 3, **settings: Any) -> Found:
    """Run a strategy on a world with `width` temperatures; one that wants to know how answers score is told."""
    temperatures = settings.pop("temperatures", tuple(i / 10 for i in range(width)))
    told = Settings(temperatures, **settings)
    if "answers" in strategy.needs(told) and "options" not in settings:
        told = replace(told, options={"reward_mean": 0.5, "reward_std": 0.0})
    return run_alone(strategy.search(Task("What is there?", told)), world)


def record(found: Found) -> dict[str, Any]:
    """An answer with its trace, as the golden files hold it."""
    rows = [{**asdict(row), "proposal": row.proposal.text, "ended": row.proposal.ended} for row in found.trace]
    return {"sentences": found.sentences, "stop": found.stop_reason, "trace": rows}


def sentences_of(requests: Sequence[Say]) -> list[str | None]:
    """What each request for sentences goes on from."""
    return [one.after.text if one.after else None for one in requests if one.until == SENTENCE]
