"""The first phase of ViMaR (arXiv 2506.15649, section 4): whole answers, and the one that goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tasks.core.search.best_of_n import with_prefixes
from tasks.core.search.contract import ANSWER, Ask, Candidate, Found, Task, say, score, split, value
from tasks.core.search.ranking import best, mean, speaking


@dataclass(frozen=True)
class Guide:
    """What judges a text: the scorer or the value model."""

    scored: bool

    def __call__(self, items: Sequence[tuple[str, Candidate]]) -> Ask[list[float | None]]:
        """The guides of (text so far, candidate) pairs."""
        if self.scored:
            return (yield from score([candidate.text for _, candidate in items]))
        return list((yield from value(items)))

    def columns(self, guides: Mapping[int, float | None]) -> dict[int, tuple[float | None, float | None]]:
        """Guides as (score, value)."""
        return {i: (one, None) if self.scored else (None, one) for i, one in guides.items()}


Answer = tuple[Candidate, list[Candidate], list[float | None]]  # the answer, its sentences, their guides


def best_answer(found: Found, task: Task, guide: Guide, *, paragraph: bool, count: int = 0) -> Ask[Answer]:
    """One answer a temperature, of the first `count` or of all; the best by its sentences' mean guide, or as one text.

    An empty answer never wins over another one; on equal terms the earlier wins.
    """
    settings = task.settings
    answers = yield from say(
        None, settings.temperatures[: count or None], max_tokens=settings.max_new_tokens, until=ANSWER
    )
    spoken = [i for i in speaking(answers) if answers[i].text]
    parts: dict[int, list[Candidate]] = {}
    wholes: dict[int, float | None] = {}
    if paragraph:
        wholes = dict(zip(spoken, (yield from guide([("", answers[i]) for i in spoken])), strict=True))
        spoken = [best(wholes, wholes)] if wholes else []
    for i in spoken:
        parts[i] = yield from split(answers[i])
    asked = iter((yield from guide([item for part in parts.values() for item in with_prefixes(part)])))
    guides = {i: [next(asked) for _ in part] for i, part in parts.items()}
    means = wholes or {i: mean(part) for i, part in guides.items()}
    chosen = best(means, means) if means else 0
    found.note(0, answers, guide.columns(means), chosen, phase="answers")
    return answers[chosen], parts.get(chosen, []), guides.get(chosen, [])
