"""Sentence-level search: VisVM (arXiv 2412.03704, section 3.3) with a value model, CLIP-PRM with the scorer in its place.

Each step proposes sentences, keeps the best by the guide, and continues from it. Departs from the released code, which ends
when its last sampled candidate repeats, never compares stopping with going on, and cuts sentences at every full stop (all of
that is in `grow_as_released`): here a repeated sentence is no candidate, and the stop rule is explicit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tasks.core.search.contract import Judgements, SearchResult, Settings, StopReason, Task
from tasks.core.search.options import own_options
from tasks.core.search.ranking import best, fresh, worth
from tasks.core.search.redundancy import overlap
from tasks.core.search.requests import Candidate, Search, propose, score, value

STOP_RULES = ("reward", "vote", "chosen", "value")


def grow(task: Task, *, scored: bool, valued: bool) -> Search[SearchResult]:
    """Grow an answer sentence by sentence along the best candidate.

    The guide of a candidate is its value if `valued`, else its score, minus `redundancy` times its overlap with the answer
    so far. Stop rules (`settings.stop`):
        reward: no new candidate's score reaches `margin`; while some do, the others are not eligible.
        vote: at least half of the candidates end the answer.
        chosen: nothing beyond the rules below.
        value: the best guide is under 0, the worth of stopping. This assumes rewards whose zero is neither good nor bad, as
            the margin-shaped ones; a bare cosine is hardly ever under 0.
    These rules do not apply to the first sentence, so that no answer is empty. Under all of them the search also stops after
    a chosen sentence with which the policy ended its answer (`end`), where nothing new is proposed (`end` if a candidate
    ends the answer, else `repeat`), and at `max_sentences`.

    Args:
        task: what to write; with `settings.published` the released loop runs instead.
        scored: request scores; `reward` needs them.
        valued: request values.

    Raises:
        ValueError: for an unknown rule.
    """
    settings = task.settings
    own_options(settings)
    if settings.published:
        return (yield from grow_as_released(task, scored=scored, valued=valued))
    if settings.stop not in STOP_RULES:
        raise ValueError(f"stop is {settings.stop!r}: want one of {', '.join(STOP_RULES)}")
    result = SearchResult()
    after: Candidate | None = None
    for step in range(settings.max_sentences):
        candidates = yield from propose(after, settings.temperatures, max_tokens=settings.max_sentence_tokens)
        new = fresh(candidates, result.sentences)
        judgements = yield from _judge(result.text, candidates, new, scored=scored, valued=valued)
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
    """The released loop, which has no explicit stop rule.

    A sentence ends at any full stop ("3.5" is two), repeated and empty texts stay candidates, and the loop ends (`repeat`)
    when the last candidate, the greedy one, equals the last candidate of the previous step. `max_sentences` limits the steps;
    the released code has no such limit.
    """
    settings = task.settings
    temperatures = (*settings.temperatures[1:], *settings.temperatures[:1])  # greedy last
    result = SearchResult()
    after: Candidate | None = None
    last: str | None = None
    for step in range(settings.max_sentences):
        candidates = yield from propose(after, temperatures, max_tokens=settings.max_sentence_tokens, until=".")
        if candidates[-1].text == last:
            result.record(step, candidates, {}, None)
            return result.finish(StopReason.REPEAT)
        last = candidates[-1].text
        indices = range(len(candidates))
        judgements = yield from _judge(result.text, candidates, indices, scored=scored, valued=valued)
        chosen = best({i: guide(*judgements[i]) for i in indices}, indices)
        result.record(step, candidates, judgements, chosen)
        if candidates[chosen].text:
            after = candidates[chosen]
            result.add(after)
    return result.finish(StopReason.MAX_SENTENCES)


def guide(cosine: float | None, estimate: float | None) -> float | None:
    """What a candidate is chosen by: its value if it has one, else its score."""
    return cosine if estimate is None else estimate


def _judge(
    so_far: str, candidates: Sequence[Candidate], indices: Sequence[int], *, scored: bool, valued: bool
) -> Search[Judgements]:
    """The scores and values of the candidates at `indices`, in one request each."""
    nothing: list[float | None] = [None] * len(indices)
    scores = (yield from score([candidates[i].text for i in indices])) if scored else nothing
    values = (yield from value([(so_far, candidates[i]) for i in indices])) if valued else nothing
    return dict(zip(indices, zip(scores, values, strict=True), strict=True))


def _choose(
    candidates: Sequence[Candidate], judgements: Judgements, sentences: Sequence[str], settings: Settings
) -> tuple[int | None, str]:
    """(index of the best candidate, "") or (None, why the search stops)."""
    if not judgements:
        return None, StopReason.END if any(candidate.ended for candidate in candidates) else StopReason.REPEAT
    first = not sentences
    if settings.stop == "vote" and not first and _half_end(candidates):
        return None, StopReason.VOTE
    eligible = list(judgements)
    if settings.stop == "reward":
        grounded = [i for i, (cosine, _) in judgements.items() if cosine is not None and cosine >= settings.margin]
        if not grounded and not first:
            return None, StopReason.REWARD
        eligible = grounded or eligible
    guides = _guides(candidates, judgements, sentences, settings.redundancy)
    chosen = best(guides, eligible)
    if settings.stop == "value" and not first and worth(guides[chosen]) < 0:
        return None, StopReason.VALUE
    return chosen, ""


def _half_end(candidates: Sequence[Candidate]) -> bool:
    ends = sum(candidate.ended and not candidate.text for candidate in candidates)
    return 2 * ends >= len(candidates)


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
