"""ViMaR: whole answers first, then better sentences in place of the weak ones (arXiv 2506.15649, section 4).

The released code computes which sentences are weak and then goes on from the answer with all of them; here they are really
replaced or dropped. What it does is in `vimar_released`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tasks.core.search.contract import Ask, Candidate, Found, Settings, Strategy, Task, fresh, say, write
from tasks.core.search.options import own_options
from tasks.core.search.ranking import best, how_it_ended, worth
from tasks.core.search.vimar_answers import Guide, best_answer
from tasks.core.search.vimar_released import as_released


def search(task: Task) -> Ask[Found]:
    """Choose an answer, then replace what is weak in it.

    The guide of a sentence is its value, or its score with `by="score"`. Phase `answers`: one answer a temperature, or at
    the first option `answers` ones; the largest mean guide of its sentences wins (option `paragraph` 1, or `published`: the
    guide of the whole text). Phase `refine`: a sentence whose guide is under `weak_below` is gone over. New sentences are
    proposed in its place; the best fresh one that reaches `weak_below` takes it, else the sentence is dropped, but the best
    is kept if nothing else is left, so that no answer is empty. Other sentences are never touched; after a change they are
    read again, so that later proposals follow the real text. They are judged once, where they stood in the answer. Last, at
    most option `append` (0) sentences are added while they reach `weak_below`.

    Stops: `refined` if anything was changed, `max_sentences` if the answer had more, else `end` or `length` as the answer.

    Raises:
        ValueError: if `by` is judge.
    """
    settings = task.settings
    own = own_options(settings, paragraph=0, append=0, answers=0, threshold=2.14)
    guide = Guide(scored="scorer" in needs(settings))
    found = Found()
    paragraph = settings.published or bool(own["paragraph"])
    winner, sentences, guides = yield from best_answer(found, task, guide, paragraph=paragraph, count=own["answers"])
    if settings.published:
        judged = list(zip(sentences, guides, strict=True))
        return (yield from as_released(found, task, guide, winner, judged, threshold=own["threshold"]))
    draft = _Draft([sentence.text for sentence in sentences])
    for index, old in enumerate(sentences):
        if len(draft.kept) == settings.max_sentences:
            break
        alone = index == len(sentences) - 1 and not draft.kept
        yield from _go_over(found, task, guide, draft, (old, guides[index]), alone=alone)
    for _ in range(min(own["append"], settings.max_sentences - len(draft.kept)) if draft.kept else 0):
        if not (yield from _append(found, task, guide, draft)):
            break
    found.sentences = draft.kept
    if draft.changed:
        return found.stop("refined")
    return found.stop("max_sentences" if len(draft.kept) < len(sentences) else how_it_ended(winner))


@dataclass
class _Draft:
    """The answer as it stands, and from where the policy goes on."""

    original: list[str]  # the sentences of the answer that was chosen
    kept: list[str] = field(default_factory=list)
    place: Candidate | None = None  # the last kept sentence that the policy has read where it stands now
    unread: list[str] = field(default_factory=list)  # sentences kept since
    changed: bool = False

    def keep(self, sentence: Candidate) -> None:
        """A sentence of the answer stays; before any change its own place is good."""
        self.kept.append(sentence.text)
        if self.changed:
            self.unread.append(sentence.text)
        else:
            self.place = sentence

    def add(self, candidate: Candidate) -> None:
        """A new sentence, proposed at `here`."""
        self.kept.append(candidate.text)
        self.place, self.changed = candidate, True

    def here(self) -> Ask[Candidate | None]:
        """The place after all that was kept; what wasn't read yet is read now."""
        if self.unread:
            self.place = yield from write(self.place, " ".join(self.unread))
            self.unread = []
        return self.place


Proposed = tuple[list[Candidate], dict[int, float | None]]  # candidates, and the guides of the fresh ones by index


def _propose(task: Task, guide: Guide, draft: _Draft) -> Ask[Proposed]:
    settings = task.settings
    after = yield from draft.here()
    candidates = yield from say(after, settings.temperatures, max_tokens=settings.max_sentence_tokens)
    asked = fresh(candidates, [*draft.original, *draft.kept])
    guides = yield from guide([(" ".join(draft.kept), candidates[i]) for i in asked])
    return candidates, dict(zip(asked, guides, strict=True))


def _go_over(
    found: Found, task: Task, guide: Guide, draft: _Draft, judged: tuple[Candidate, float | None], *, alone: bool
) -> Ask[None]:
    """Keep, replace or drop one sentence; candidate 0 of the step is the sentence itself."""
    old, old_guide = judged
    candidates, guides = [old], {0: old_guide}
    chosen: int | None = 0
    if worth(old_guide) < task.settings.weak_below:
        drawn, drawn_guides = yield from _propose(task, guide, draft)
        candidates += drawn
        guides |= {i + 1: one for i, one in drawn_guides.items()}
        chosen = best(guides, guides)
        if worth(guides[chosen]) < task.settings.weak_below and not alone:
            chosen = None
    _note(found, guide, candidates, guides, chosen)
    if chosen == 0:
        draft.keep(old)
    elif chosen is not None:
        draft.add(candidates[chosen])
    else:
        draft.changed = True


def _append(found: Found, task: Task, guide: Guide, draft: _Draft) -> Ask[bool]:
    """Add the best fresh sentence if it reaches `weak_below`; whether to go on after it."""
    candidates, guides = yield from _propose(task, guide, draft)
    chosen = best(guides, guides) if guides else None
    if chosen is not None and worth(guides[chosen]) < task.settings.weak_below:
        chosen = None
    _note(found, guide, candidates, guides, chosen)
    if chosen is None:
        return False
    draft.add(candidates[chosen])
    return not candidates[chosen].ended


def _note(
    found: Found, guide: Guide, candidates: Sequence[Candidate], guides: dict[int, float | None], chosen: int | None
) -> None:
    found.note(found.trace[-1].step + 1, candidates, guide.columns(guides), chosen, phase="refine")


def needs(settings: Settings) -> frozenset[str]:
    """The value model, or the scorer with `by="score"`; and what is weak, unless a published threshold says so.

    Raises:
        ValueError: if `by` is judge.
    """
    if settings.by == "judge":
        raise ValueError("vimar is guided by a number: want by score or value, not judge")
    guides = {"scorer" if settings.by == "score" else "value"}
    return frozenset(guides if settings.published else guides | {"weak"})


vimar = Strategy(search, needs)
