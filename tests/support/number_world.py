"""A policy, a scorer and a value model made of arithmetic, for searches: no weights, no images.

A sentence is "Say N."; what is proposed depends on slot, depth, the sentence before, and the candidate's index.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from tasks.core.search.contract import SearchResult, Settings, Strategy, Task, run_alone
from tasks.core.search.requests import (
    ANSWER,
    SENTENCE,
    Ask,
    Candidate,
    Complete,
    Force,
    Generate,
    Propose,
    Request,
    Score,
    SplitSentences,
    Value,
)
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


def numbers(slot: int = 0, ends_after: int = 5) -> Callable[[Propose], list[Candidate]]:
    """Candidate i writes last * 3 + 5 * i + slot + 1, modulo 23; the greedy one ends the answer after `ends_after`.

    A whole answer begins as the sentence would and continues as the greedy one does. A handle is the depth: sentences so far.
    """

    def after(last: int, i: int) -> int:
        return (3 * last + 5 * i + slot + 1) % 23

    def propose(request: Propose) -> list[Candidate]:
        depth = request.after.handle if request.after else 0
        last = number(request.after.text) if request.after else 0
        candidates = []
        for i in range(len(request.temperatures)):
            written = [after(last, i)]
            while request.until == ANSWER and len(written) < 3 + i % 2:
                written.append(after(written[-1], 0))
            ended = request.until == ANSWER or (i == 0 and depth >= ends_after)
            text = " ".join(f"Say {n}." for n in written)
            candidates.append(Candidate(text, i / 10, ended, 3 * len(written), handle=depth + len(written)))
        return candidates

    return propose


def numbers_and_ends(slot: int = 0) -> Callable[[Propose], list[Candidate]]:
    """As `numbers`, but from the second sentence on some candidates end the answer without a text, more of them as it grows."""
    with_texts = numbers(slot)

    def propose(request: Propose) -> list[Candidate]:
        depth = request.after.handle if request.after else 0
        return [
            replace(candidate, text="", ended=True) if depth and (i + slot) % 5 < depth - 1 else candidate
            for i, candidate in enumerate(with_texts(request))
        ]

    return propose


def tagged() -> Callable[[Propose], list[Candidate]]:
    """A policy that writes stages: candidate i writes `3 * count + 5 * i`, modulo 23, where `count` counts the requests."""
    count = 0

    def propose(request: Propose) -> list[Candidate]:
        nonlocal count
        count += 1
        (stage,) = [stage for stage in STAGES if closing(stage) == request.until]
        texts = [
            f"{opening(stage)}Say {(3 * count + 5 * i) % 23}.{request.until}" for i in range(len(request.temperatures))
        ]
        return [Candidate(text, 0.6, False, 5, handle=count) for text in texts]

    return propose


def script(*steps: list[Candidate]) -> Callable[[Propose], list[Candidate]]:
    """Propose these lists, one for each request."""
    left = iter(steps)
    return lambda request: next(left)


def proposed(*texts: str, ended: bool = False) -> list[Candidate]:
    return [Candidate(text, 0.0, ended, 1, handle=1) for text in texts]


def ending(*texts: str) -> list[Candidate]:
    """Candidates, of which the empty ones end the answer."""
    return [Candidate(text, 0.0, ended=not text, drawn=1, handle=1) for text in texts]


@dataclass
class World:
    """Answers requests and records them."""

    propose: Callable[[Propose], list[Candidate]]
    score: Callable[[str], float | None] = score_of
    value: Callable[[str], float] = value_of
    judge: Callable[[str], str] = lambda question: ""
    requests: list[Request] = field(default_factory=list)

    def __call__(self, request: Request) -> Any:
        self.requests.append(request)
        if isinstance(request, Propose):
            return self.propose(request)
        if isinstance(request, Score):
            return [self.score(text) for text in request.texts]
        if isinstance(request, Value):
            return [self.value(candidate.text) for _, candidate in request.items]
        if isinstance(request, Complete):  # of nine objects: as many as the largest digit that the answer names
            return [max(map(int, re.findall("[0-9]", so_far + text)), default=0) / 9 for so_far, text in request.items]
        return self._other(request)

    def _other(self, request: Force | SplitSentences | Ask | Generate) -> Any:
        if isinstance(request, Ask):
            return self.judge(request.question)
        if isinstance(request, Generate):
            return Candidate("Say 1. Say 4.", 0.0, True, 8)
        if isinstance(request, Force):
            before = request.after.handle if request.after else 0
            return Candidate(request.text, 0.0, False, 0, handle=before + len(split_sentences(request.text)))
        parts = split_sentences(request.answer.text)
        return [Candidate(part.text, 0.0, False, 0, handle=i + 1) for i, part in enumerate(parts)]

    def of(self, kind: type) -> list[Any]:
        """The requests of one kind, in order."""
        return [request for request in self.requests if isinstance(request, kind)]


def by(table: dict[str, Any]) -> Callable[[str], Any]:
    return table.__getitem__


def run(strategy: Strategy, world: World, *, width: int = 3, **settings: Any) -> SearchResult:
    """Run a strategy on a world with `width` temperatures; a strategy that needs the mean of answer scores gets one."""
    temperatures = settings.pop("temperatures", tuple(i / 10 for i in range(width)))
    seed, prompt = settings.pop("seed", ()), settings.pop("prompt", "What is there?")
    complete = Settings(temperatures, **settings)
    if "answers" in strategy.needs(complete) and "options" not in settings:
        complete = replace(complete, options={"reward_mean": 0.5, "reward_std": 0.001})
    return run_alone(strategy.search(Task(prompt, complete, seed)), world)


def record(result: SearchResult) -> dict[str, Any]:
    """An answer with its trace, as the golden files hold it."""
    rows = [{**asdict(row), "proposal": row.proposal.text, "ended": row.proposal.ended} for row in result.trace]
    return {"sentences": result.sentences, "stop": result.stop_reason, "trace": rows}


def sentences_of(requests: Sequence[Propose]) -> list[str | None]:
    """The sentence that each request for sentences continues from."""
    return [r.after.text if r.after else None for r in requests if r.until == SENTENCE]
