"""Whole answers of a policy that learns, with the very tokens that were drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tasks.core.engine.scheduler import Job, SearchScheduler
from tasks.core.search.contract import SearchResult, StopReason
from tasks.core.search.requests import ANSWER, Search, propose
from tasks.core.seeds import Part
from tasks.core.train.answers import Picture, opened


class Drawn(NamedTuple):
    """An answer of the policy."""

    tokens: tuple[int, ...]  # without an end token
    text: str
    ended: bool  # by the policy, not by the token limit


@dataclass(frozen=True)
class Drawing:
    """Answers to draw for one prompt about an image."""

    image: Picture
    prompt: str
    temperature: float
    max_tokens: int
    seed: tuple[Part, ...]
    draws: Sequence[tuple[Part, ...]]  # what names each answer, behind `seed`


def draw_answers(
    scheduler: SearchScheduler, drawings: Sequence[Drawing], advance: Callable[[int], None] = lambda finished: None
) -> list[list[Drawn]]:
    """The answers of each drawing, in their order; `advance` is called whenever one drawing is finished, with 1."""
    drawn: list[list[Drawn]] = [[] for _ in drawings]
    for _ in scheduler.run(_jobs(drawings, drawn)):
        advance(1)  # the answers are collected by the jobs
    return drawn


def _jobs(drawings: Sequence[Drawing], into: list[list[Drawn]]) -> Iterator[Job]:
    for index, drawing in enumerate(drawings):
        yield Job(
            index,
            image=lambda drawing=drawing: opened(drawing.image),  # type: ignore[misc]
            prompt=drawing.prompt,
            search=_whole_answers(drawing, into[index]),
            seed=drawing.seed,
            draws=drawing.draws,
        )


def _whole_answers(drawing: Drawing, into: list[Drawn]) -> Search[SearchResult]:
    """Not a search: one whole answer for each draw. They are kept until their tokens are read: a trace holds texts alone."""
    temperatures = [drawing.temperature] * len(drawing.draws)
    answers = yield from propose(None, temperatures, max_tokens=drawing.max_tokens, until=ANSWER, keep=True)
    into.extend(Drawn(tuple(answer.handle.tokens), answer.text, answer.ended) for answer in answers)
    return SearchResult().finish(StopReason.END)
