"""ViMaR: choose a whole answer, replace its weak sentences, add what it overlooked (arXiv 2506.15649, section 4).

The released code computes which sentences are weak and then continues from the answer with all of them; here they are really
replaced or dropped. It appends whatever is best; here an added sentence must be worth more than the end. `vimar_released` does
what the released code does.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tasks.core.search.contract import SearchResult, Settings, StopReason, Strategy, Task
from tasks.core.search.options import own_options
from tasks.core.search.ranking import best, fresh, how_it_ended, worth
from tasks.core.search.requests import Candidate, Search, force, propose
from tasks.core.search.vimar_answers import Guide, best_answer
from tasks.core.search.vimar_released import append_as_released
from tasks.core.text import joined

OPTIONS = {"paragraph": 0, "append": 0, "answers": 0, "threshold": 2.14}  # with their defaults


def search(task: Task) -> Search[SearchResult]:
    """Choose an answer, replace the weak sentences in it, and add sentences that are worth more than the end.

    The guide of a sentence is its value, or its score with `by="score"`. Phase `answers`: one answer for each temperature,
    or for the first option `answers` ones; the largest mean guide of its sentences wins (option `paragraph` 1, or
    `published`: the guide of the whole text). Phase `refine`: for each sentence whose guide is under `refine_below`, new
    sentences are proposed in its place; the best fresh one that reaches `refine_below` replaces it, else the sentence is
    dropped, but the best one is kept if the answer would be empty otherwise. Other sentences never change; after a change
    the policy reads them again, so that later proposals follow the real text. Sentences are judged once, where they stood in
    the first answer. Phase `append`: at most option `append` (0) times, sentences are proposed after the answer, and the
    best fresh one competes with the end: it is added if it reaches `refine_below` and its guide exceeds `end_value`.

    Why both: the answer is finished, so the policy has proposed its end, and the end is what every addition is compared with. V
    of a sentence counts all that follows it and an ended answer is worth 0 to a V of margin-shaped rewards, so a guide over 0
    says that going on is better than ending. `refine_below` is where this search draws the line of what it leaves in an
    answer: what is under it would have been replaced or dropped a moment ago. Whichever is higher decides.

    Stops: `refined` if anything changed, `max_sentences` if the answer had more, else `end` or `length` as the answer.

    Raises:
        ValueError: if `by` is judge.
    """
    settings = task.settings
    own = own_options(settings, **OPTIONS)
    guide = Guide(scored="scorer" in needs(settings))
    result = SearchResult()
    paragraph = settings.published or bool(own["paragraph"])
    draft = yield from best_answer(result, task, guide, paragraph=paragraph, count=own["answers"])
    if settings.published:
        return (yield from append_as_released(result, task, guide, draft, threshold=own["threshold"]))
    revision = _Revision(result, task, guide, original=[sentence.text for sentence in draft.sentences])
    for index, sentence in enumerate(draft.sentences):
        if len(revision.kept) == settings.max_sentences:
            break
        only = index == len(draft.sentences) - 1 and not revision.kept
        yield from revision.refine(sentence, draft.guides[index], only=only)
    for _ in range(min(own["append"], settings.max_sentences - len(revision.kept)) if revision.kept else 0):
        if not (yield from revision.append()):
            break
    for sentence in revision.kept:
        result.add(sentence)
    if revision.changed:
        return result.finish(StopReason.REFINED)
    cut = len(revision.kept) < len(draft.sentences)
    return result.finish(StopReason.MAX_SENTENCES if cut else how_it_ended(draft.answer))


@dataclass
class _Revision:
    """The answer while it is revised, and the candidate that the policy continues from."""

    result: SearchResult
    task: Task
    guide: Guide
    original: list[str]  # the sentences of the chosen answer
    kept: list[Candidate] = field(default_factory=list)  # the revised answer so far
    last_read: Candidate | None = None  # the last kept sentence that the policy has read in its present context
    unread: list[Candidate] = field(default_factory=list)  # kept sentences after it
    changed: bool = False

    def refine(self, old: Candidate, old_guide: float | None, *, only: bool) -> Search[None]:
        """Keep, replace or drop a sentence, which is candidate 0 of the step; `only`: it can't be dropped."""
        candidates, guides = [old], {0: old_guide}
        chosen: int | None = 0
        if self._is_weak(old_guide):
            proposals, new_guides = yield from self._propose()
            candidates += proposals
            guides |= {i + 1: guide for i, guide in new_guides.items()}
            chosen = best(guides, guides)
            if self._is_weak(guides[chosen]) and not only:
                chosen = None
        self._record(candidates, guides, chosen)
        if chosen == 0:
            self._keep(old)
        elif chosen is not None:
            self._add(candidates[chosen])
        else:
            self.changed = True

    def append(self) -> Search[bool]:
        """Add the best fresh sentence if it is not weak and worth more than the end; whether to try for another."""
        candidates, guides = yield from self._propose()
        chosen = best(guides, guides) if guides else None
        if chosen is not None and (
            self._is_weak(guides[chosen]) or worth(guides[chosen]) <= self.task.settings.end_worth
        ):
            chosen = None
        self._record(candidates, guides, chosen, phase="append")
        if chosen is None:
            return False
        self._add(candidates[chosen])
        return not candidates[chosen].ended

    def _is_weak(self, guide: float | None) -> bool:
        return worth(guide) < self.task.settings.refine_below

    def _keep(self, sentence: Candidate) -> None:
        """Keep a sentence of the answer; before any change the policy has read it in this context."""
        self.kept.append(sentence)
        if self.changed:
            self.unread.append(sentence)
        else:
            self.last_read = sentence

    def _add(self, candidate: Candidate) -> None:
        """Add a new sentence, proposed after all kept ones."""
        self.kept.append(candidate)
        self.last_read, self.changed = candidate, True

    def _propose(self) -> Search[tuple[list[Candidate], dict[int, float | None]]]:
        """Candidates after all kept sentences, and the guides of the fresh ones by index."""
        if self.unread:
            self.last_read = yield from force(self.last_read, _text_of(self.unread), space=self.unread[0].space)
            self.unread = []
        settings = self.task.settings
        candidates = yield from propose(self.last_read, settings.temperatures, max_tokens=settings.max_sentence_tokens)
        new = fresh(candidates, [*self.original, *(sentence.text for sentence in self.kept)])
        guides = yield from self.guide([(_text_of(self.kept), candidates[i]) for i in new])
        return candidates, dict(zip(new, guides, strict=True))

    def _record(
        self, candidates: list[Candidate], guides: dict[int, float | None], chosen: int | None, phase: str = "refine"
    ) -> None:
        step = self.result.trace[-1].step + 1
        self.result.record(step, candidates, self.guide.judgements(guides), chosen, phase=phase)


def _text_of(sentences: list[Candidate]) -> str:
    return joined([sentence.text for sentence in sentences], [sentence.space for sentence in sentences])


def needs(settings: Settings) -> frozenset[str]:
    """The value model, or the scorer with `by="score"`; a bound to refine below, unless `published` sets its own.

    Where sentences are added, what ending is worth, too.

    Raises:
        ValueError: if `by` is judge, or for an unknown option.
    """
    if settings.by == "judge":
        raise ValueError("vimar is guided by a number: want by score or value, not judge")
    scored = settings.by == "score"
    needed = {"scorer" if scored else "value"}
    if not settings.published:
        needed |= {"weak"}
        if own_options(settings, **OPTIONS)["append"] and settings.end_value is None:
            needed |= {"margin" if scored else "end_value"}
    return frozenset(needed)


vimar = Strategy(search, needs)
