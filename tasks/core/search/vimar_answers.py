"""The first phase of ViMaR (arXiv 2506.15649, section 4): draw whole answers and choose the one to refine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tasks.core.search.best_of_n import with_prefixes
from tasks.core.search.contract import SearchResult, Task
from tasks.core.search.ranking import best, mean, non_empty
from tasks.core.search.requests import ANSWER, Candidate, Search, propose, score, split_answer, value


@dataclass(frozen=True)
class Guide:
    """What judges a text: the scorer or the value model."""

    scored: bool

    def __call__(self, items: Sequence[tuple[str, Candidate]]) -> Search[list[float | None]]:
        """The guides of (text so far, candidate) pairs."""
        if self.scored:
            return (yield from score([candidate.text for _, candidate in items], [before for before, _ in items]))
        return list((yield from value(items)))

    def judgements(self, guides: Mapping[int, float | None]) -> dict[int, tuple[float | None, float | None]]:
        """Guides as (score, value), by candidate index."""
        return {i: (guide, None) if self.scored else (None, guide) for i, guide in guides.items()}


class Draft(NamedTuple):
    """The chosen answer with its sentences and the guide of each."""

    answer: Candidate
    sentences: list[Candidate]
    guides: list[float | None]


def best_answer(result: SearchResult, task: Task, guide: Guide, *, paragraph: bool, count: int = 0) -> Search[Draft]:
    """One answer for each of the first `count` temperatures (0: all); the best by the mean guide of its sentences.

    `paragraph`: by the guide of the whole text instead. An empty answer never wins over another; of equal ones the earlier
    wins. Records the step.
    """
    settings = task.settings
    answers = yield from propose(
        None, settings.temperatures[: count or None], max_tokens=settings.max_new_tokens, until=ANSWER
    )
    indices = [i for i in non_empty(answers) if answers[i].text]
    parts: dict[int, list[Candidate]] = {}
    wholes: dict[int, float | None] = {}
    if paragraph:
        wholes = dict(zip(indices, (yield from guide([("", answers[i]) for i in indices])), strict=True))
        indices = [best(wholes, wholes)] if wholes else []
    for i in indices:
        parts[i] = yield from split_answer(answers[i])
    flat = iter((yield from guide([item for part in parts.values() for item in with_prefixes(part)])))
    guides = {i: [next(flat) for _ in part] for i, part in parts.items()}
    means = wholes or {i: mean(part) for i, part in guides.items()}
    chosen = best(means, means) if means else 0
    result.record(0, answers, guide.judgements(means), chosen, phase="answers")
    return Draft(answers[chosen], parts.get(chosen, []), guides.get(chosen, []))
