"""Sentence-level search: VisVM (arXiv 2412.03704, section 3.3) with a value model, CLIP-PRM with the scorer in its place.

Each step proposes sentences, keeps the best by the guide, and continues from it. The policy's proposal to end the answer is a
candidate like the others: it has a worth on the guide's scale. Departs from the released code, which ends when its last
sampled candidate repeats, never compares ending with going on, and cuts sentences at every full stop (all of that is in
`grow_as_released`): here a repeated sentence is no candidate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeAlias

from tasks.core.search.contract import Judgements, SearchResult, Settings, StopReason, Task
from tasks.core.search.options import own_options
from tasks.core.search.ranking import best, fresh, worth
from tasks.core.search.redundancy import overlap
from tasks.core.search.requests import Candidate, Search, propose, score, value

# (answer so far, candidates, indices of those to judge) -> (score, guide) of each; the guide is None where the score is it.
Judge: TypeAlias = Callable[[str, Sequence[Candidate], Sequence[int]], Search[Judgements]]
KNOWN = {
    "end": ("action", "policy", "vote", "guide"),
    "filter": ("none", "margin"),
    "choose": ("best", "greedy"),
}


def grow(task: Task, *, scored: bool, valued: bool) -> Search[SearchResult]:
    """Grow an answer guided by V if `valued`, else by the score, as `grow_by`.

    Args:
        task: what to write; with `settings.published` the released loop runs instead.
        scored: request scores; `filter` margin needs them.
        valued: request values.

    Raises:
        ValueError: as `grow_by`.
    """
    own_options(task.settings)
    if task.settings.published:
        return (yield from grow_as_released(task, scored=scored, valued=valued))
    return (yield from grow_by(task, partial(_judge, scored=scored, valued=valued)))


def grow_by(task: Task, judge: Judge) -> Search[SearchResult]:
    """Grow an answer sentence by sentence along the best candidate.

    The guide of a candidate is what `judge` says of it, minus `redundancy` times its overlap with the answer so far. What
    ends the search (`settings.end`):
        action: a candidate proposes the end (it ends the answer without a text), and no guide exceeds `end_value`, which is
            what ending is worth: on a bare score's scale the margin, with rewards whose zero parts good from bad 0.
        policy: only what is below; the papers' rule.
        vote: at least half of the candidates propose the end.
        guide: the best guide is under `end_value`, whether or not the end is proposed.
    The first sentence is exempt, so that no answer is empty. Under all of them the search also ends after a chosen sentence
    with which the policy ended its answer (`end`), where nothing new is proposed (`end` if a candidate ends the answer, else
    `repeat`), and at `max_sentences`.

    With `filter` margin only candidates whose score reaches the margin are eligible; where none does, the search ends
    (`reward`), but for the first sentence. With `choose` greedy the first eligible candidate is taken, whatever its guide.

    Raises:
        ValueError: for an unknown `end`, `filter` or `choose`.
    """
    settings = task.settings
    for name, known in KNOWN.items():
        if (given := getattr(settings, name)) not in known:
            raise ValueError(f"{name} is {given!r}: want one of {', '.join(known)}")
    result = SearchResult()
    after: Candidate | None = None
    for step in range(settings.max_sentences):
        candidates = yield from propose(after, settings.temperatures, max_tokens=settings.max_sentence_tokens)
        new = fresh(candidates, result.sentences)
        judgements = yield from judge(result.text, candidates, new)
        chosen, reason = _choose(candidates, judgements, result.sentences, settings)
        result.record(step, candidates, judgements, chosen)
        if chosen is None:
            return result.finish(reason)
        after = candidates[chosen]
        result.add(after)
        if after.ended:
            return result.finish(StopReason.END)
    return result.finish(StopReason.MAX_SENTENCES)


def grow_as_released(task: Task, *, scored: bool, valued: bool) -> Search[SearchResult]:
    """The released loop, which never weighs the end.

    A sentence ends at any full stop ("3.5" is two), and repeated and empty texts stay candidates. Each step appends its best
    candidate first; then the loop ends (`repeat`) if the last candidate, the greedy one, equals the last candidate of the step
    before. `max_sentences` limits the steps; the released code has no such limit.
    """
    settings = task.settings
    temperatures = (*settings.temperatures[1:], *settings.temperatures[:1])  # greedy last
    result = SearchResult()
    after: Candidate | None = None
    last: str | None = None
    for step in range(settings.max_sentences):
        candidates = yield from propose(after, temperatures, max_tokens=settings.max_sentence_tokens, until=".")
        indices = range(len(candidates))
        judgements = yield from _judge(result.text, candidates, indices, scored=scored, valued=valued)
        chosen = best({i: guide(*judgements[i]) for i in indices}, indices)
        result.record(step, candidates, judgements, chosen)
        if candidates[chosen].text:
            after = candidates[chosen]
            result.add(after)
        if candidates[-1].text == last:
            return result.finish(StopReason.REPEAT)
        last = candidates[-1].text
    return result.finish(StopReason.MAX_SENTENCES)


def guide(cosine: float | None, estimate: float | None) -> float | None:
    """What a candidate is chosen by: its value if it has one, else its score."""
    return cosine if estimate is None else estimate


def _judge(
    so_far: str, candidates: Sequence[Candidate], indices: Sequence[int], *, scored: bool, valued: bool
) -> Search[Judgements]:
    """The scores and values of the candidates at `indices`, in one request each."""
    nothing: list[float | None] = [None] * len(indices)
    texts = [candidates[i].text for i in indices]
    scores = (yield from score(texts, [so_far] * len(texts))) if scored else nothing
    values = (yield from value([(so_far, candidates[i]) for i in indices])) if valued else nothing
    return dict(zip(indices, zip(scores, values, strict=True), strict=True))


def _choose(
    candidates: Sequence[Candidate], judgements: Judgements, sentences: Sequence[str], settings: Settings
) -> tuple[int | None, str]:
    """(index of the chosen candidate, "") or (None, why the search ends)."""
    if not judgements:
        return None, StopReason.END if any(candidate.ended for candidate in candidates) else StopReason.REPEAT
    first = not sentences
    if settings.end == "vote" and not first and 2 * _end_proposals(candidates) >= len(candidates):
        return None, StopReason.VOTE
    eligible = list(judgements)
    if settings.filter == "margin":
        grounded = [i for i, (cosine, _) in judgements.items() if cosine is not None and cosine >= settings.margin]
        if not grounded and not first:
            return None, StopReason.REWARD
        eligible = grounded or eligible
    guides = _guides(candidates, judgements, sentences, settings.redundancy)
    preferred = best(guides, eligible)
    if not first and (reason := _why_end(candidates, worth(guides[preferred]), settings)):
        return None, reason
    return (eligible[0] if settings.choose == "greedy" else preferred), ""


def _why_end(candidates: Sequence[Candidate], best_guide: float, settings: Settings) -> str:
    """Why ending is preferred to the best candidate; "" if it is not."""
    if settings.end == "action" and best_guide <= settings.end_worth and _end_proposals(candidates):
        return StopReason.END_VALUE
    if settings.end == "guide" and best_guide < settings.end_worth:
        return StopReason.VALUE
    return ""


def _end_proposals(candidates: Sequence[Candidate]) -> int:
    """How many candidates end the answer without a text."""
    return sum(candidate.ended and not candidate.text for candidate in candidates)


def _guides(
    candidates: Sequence[Candidate], judgements: Judgements, sentences: Sequence[str], redundancy: float
) -> Mapping[int, float | None]:
    guides = {i: guide(*judgement) for i, judgement in judgements.items()}
    if not redundancy:
        return guides
    return {
        i: None if plain is None else plain - redundancy * overlap(candidates[i].text, sentences)
        for i, plain in guides.items()
    }
