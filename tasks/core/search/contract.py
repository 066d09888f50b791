"""What a search strategy is: its settings, its task, and the result with a complete trace.

A search writes one answer about one image. It is a generator over the requests of `tasks.core.search.requests` and returns a
`SearchResult`. It never sees a model, an image or a cache. The scheduler (`tasks.core.engine.scheduler`) runs many searches
and serves their requests in batches; a search can't depend on the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal, TypeAlias

from tasks.core.search.requests import Candidate, Request, Search
from tasks.core.seeds import Part
from tasks.core.text import joined

Judgements: TypeAlias = Mapping[int, tuple[float | None, float | None]]  # candidate index -> (score, value)


class StopReason(StrEnum):
    """Why a search stopped; the values stand in `captions` and `search_trace`. A plug-in may give reasons of its own."""

    END = "end"  # the policy ended its answer
    LENGTH = "length"  # a token limit
    MAX_SENTENCES = "max_sentences"
    REPEAT = "repeat"  # nothing new was proposed
    END_VALUE = "end_value"  # the policy proposed to end, and no candidate was worth more
    REWARD = "reward"  # filtered by the margin, and no candidate's score reached it
    VOTE = "vote"  # at least half of the candidates ended the answer
    VALUE = "value"  # the best candidate was worth less than ending
    REFINED = "refined"  # vimar changed the answer
    CUTOFF = "cutoff"  # swires: enough rewards above the cutoff
    ROUNDS = "rounds"  # swires: no round left
    UNFINISHED = "unfinished"  # swires: no answer reached its last stage
    UNTAGGED = "untagged"  # stage_beam: the policy wrote no stages


@dataclass(frozen=True)
class TraceRow:
    """One candidate of one step, as `search_trace` stores it."""

    step: int  # 0-based
    candidate: int  # 0-based index within the step
    proposal: Candidate
    score: float | None = None  # cosine; None: not scored
    value: float | None = None  # V; None: not valued
    chosen: bool = False
    stop: str | None = None  # on the last row: why the search stopped
    phase: str | None = None  # which part of the search, for strategies that have several


@dataclass
class SearchResult:
    """An answer, and the trace of how the search arrived at it."""

    sentences: list[str] = field(default_factory=list)
    trace: list[TraceRow] = field(default_factory=list)
    stop_reason: str = ""
    spaces: list[str] = field(default_factory=list)  # white space before each sentence; a blank where it is not given

    @property
    def text(self) -> str:
        """The answer."""
        return joined(self.sentences, self.spaces)

    def add(self, candidate: Candidate) -> None:
        """Append a candidate's text, after the white space that its tokens have before it."""
        self.spaces += [" "] * (len(self.sentences) - len(self.spaces))
        self.spaces.append(candidate.space)
        self.sentences.append(candidate.text)

    def record(
        self,
        step: int,
        candidates: Sequence[Candidate],
        judgements: Judgements,
        chosen: int | None,
        phase: str | None = None,
    ) -> None:
        """Add a step to the trace: all its candidates, the judgements of some of them, and the index of the chosen one.

        The trace outlives the search, so it drops the candidates' handles, which hold the engine's memory.
        """
        for index, candidate in enumerate(candidates):
            score, value = judgements.get(index, (None, None))
            proposal = replace(candidate, handle=None)
            self.trace.append(TraceRow(step, index, proposal, score, value, chosen=index == chosen, phase=phase))

    def finish(self, reason: str) -> SearchResult:
        """Set the stop reason (a `StopReason`, or a plug-in's own), also on the last row of the trace; returns itself."""
        self.stop_reason = str(reason)
        if self.trace:
            self.trace[-1] = replace(self.trace[-1], stop=self.stop_reason)
        return self


@dataclass(frozen=True)
class Settings:
    """Settings of a search; each strategy reads those it needs."""

    temperatures: tuple[float, ...]  # one for each candidate, greedy (0) first
    end: Literal["action", "policy", "vote", "guide"] = "action"  # what ends a guided search
    end_value: float | None = None  # what ending is worth on the guide's scale; None: the margin
    filter: Literal["none", "margin"] = "none"  # margin: only candidates whose score reaches it are eligible
    choose: Literal["best", "greedy"] = "best"  # greedy: the first new candidate; the guide decides about the end only
    margin: float = float("-inf")  # the rewards' margin
    refine_below: float = float("-inf")  # vimar replaces a sentence whose guide is lower
    redundancy: float = 0.0  # weight of the overlap that is subtracted from a candidate's guide
    by: Literal["score", "value", "judge"] | None = None  # what ranks whole answers; None: the strategy's own default
    max_sentences: int = 20
    max_sentence_tokens: int = 128
    max_new_tokens: int = 1024
    published: bool = False  # behave as the released code does, defects included
    options: Mapping[str, float | int | str | bool] = field(default_factory=dict)  # the strategy's own

    @property
    def end_worth(self) -> float:
        """What ending is worth on the guide's scale."""
        return self.margin if self.end_value is None else self.end_value

    @property
    def lacks_end_value(self) -> bool:
        """Whether a guide is compared with what ending is worth, and nobody has set that."""
        return self.end_value is None and self.end in ("action", "guide") and not self.published


@dataclass(frozen=True)
class Task:
    """One answer to write."""

    prompt: str
    settings: Settings
    seed: tuple[Part, ...] = ()  # begins the name of every draw that the search makes itself


SearchFunction: TypeAlias = Callable[[Task], Search[SearchResult]]


@dataclass(frozen=True)
class Strategy:
    """A search and what it needs.

    Needs: scorer, margin (of the rewards), value, end_value (what ending is worth on V's scale), weak (a bound to refine
    below), answers (how the run's own answers score), objects (detected in the images).
    """

    search: SearchFunction
    needs: Callable[[Settings], frozenset[str]]


def strategy(*needs: str) -> Callable[[SearchFunction], Strategy]:
    """Make a strategy of a search whose needs don't depend on its settings: `@strategy("scorer")`."""
    return lambda search: Strategy(search, lambda settings: frozenset(needs))


def run_alone(search: Search[SearchResult], answer: Callable[[Request], Any]) -> SearchResult:
    """Run one search, each request answered by a callable: for tests and for other runners."""
    request = next(search)
    while True:
        try:
            request = search.send(answer(request))
        except StopIteration as stopped:
            result: SearchResult = stopped.value
            return result
