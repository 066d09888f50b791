"""Sentence-level search: VisVM (arXiv 2412.03704, section 3.3) with a value model, CLIP-PRM with the scorer in its place.

Each step proposes sentences, keeps the best by the guide, and goes on from it. Departs from the released code, which ends when
its last sampled candidate repeats, never compares stopping with going on, and cuts sentences at every full stop (all that is
in `grow_as_released`): a sentence that was said is no candidate, and the rule for stopping is named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tasks.core.search.contract import Ask, Candidate, Found, Settings, Task, fresh, say, score, value
from tasks.core.search.options import own_options
from tasks.core.search.ranking import best, worth
from tasks.core.search.redundancy import overlap

STOP_RULES = ("reward", "vote", "chosen", "value")
Judged = dict[int, tuple[float | None, float | None]]  # candidate index -> (score, value)


def grow(task: Task, *, scored: bool, valued: bool) -> Ask[Found]:
    """Grow an answer sentence by sentence along the best candidate.

    The guide of a candidate is its value if `valued`, else its score, less `redundancy` times its overlap with what was said.
    Rules for stopping (`settings.stop`):
        reward: no new candidate's score reaches `margin`; those under it are not chosen while one above it is there.
        vote: at least half of the candidates end the answer.
        chosen: only what follows.
        value: the best guide is under 0, what stopping is worth. This supposes rewards whose zero is neither good nor bad, as
            the margin-shaped ones; a bare cosine is hardly ever under 0.
    The first sentence is exempt from them, so that no answer is empty. In all of them the answer ends (`end`) with a chosen
    sentence after which the policy ended its own; where nothing new is proposed (`end` if a candidate ends the answer, else
    `repeat`); and at `max_sentences`.

    Args:
        task: what to write; with `settings.published` the released loop runs instead.
        scored: ask for scores; `reward` needs them.
        valued: ask for values.

    Raises:
        ValueError: for an unknown rule.
    """
    settings = task.settings
    own_options(settings)
    if settings.published:
        return (yield from grow_as_released(task, scored=scored, valued=valued))
    if settings.stop not in STOP_RULES:
        raise ValueError(f"stop is {settings.stop!r}: want one of {', '.join(STOP_RULES)}")
    found = Found()
    after: Candidate | None = None
    for step in range(settings.max_sentences):
        candidates = yield from say(after, settings.temperatures, max_tokens=settings.max_sentence_tokens)
        asked = fresh(candidates, found.sentences)
        judged = yield from _judge(found.text, candidates, asked, scored=scored, valued=valued)
        chosen, reason = _choose(candidates, judged, found.sentences, settings)
        found.note(step, candidates, judged, chosen)
        if chosen is None:
            return found.stop(reason)
        after = candidates[chosen]
        found.sentences.append(after.text)
        if after.ended:
            return found.stop("end")
    return found.stop("max_sentences")


def grow_as_released(task: Task, *, scored: bool, valued: bool) -> Ask[Found]:
    """The released loop, which names no rule for stopping.

    A sentence ends at any full stop ("3.5" is two), what was said stays a candidate, so does an empty text, and the loop ends
    (`repeat`) when the last candidate, the greedy one, is the last candidate of the step before. `max_sentences` is a limit
    on the steps that the released code doesn't have.
    """
    settings = task.settings
    temperatures = (*settings.temperatures[1:], *settings.temperatures[:1])  # greedy last
    found = Found()
    after: Candidate | None = None
    last: str | None = None
    for step in range(settings.max_sentences):
        candidates = yield from say(after, temperatures, max_tokens=settings.max_sentence_tokens, until=".")
        if candidates[-1].text == last:
            found.note(step, candidates, {}, None)
            return found.stop("repeat")
        last = candidates[-1].text
        everyone = range(len(candidates))
        judged = yield from _judge(found.text, candidates, everyone, scored=scored, valued=valued)
        chosen = best({i: guide(*judged[i]) for i in everyone}, everyone)
        found.note(step, candidates, judged, chosen)
        if candidates[chosen].text:
            after = candidates[chosen]
            found.sentences.append(after.text)
    return found.stop("max_sentences")


def guide(one_score: float | None, one_value: float | None) -> float | None:
    """What a candidate is chosen by: its value where there is one, else its score."""
    return one_score if one_value is None else one_value


def _judge(
    so_far: str, candidates: Sequence[Candidate], asked: Sequence[int], *, scored: bool, valued: bool
) -> Ask[Judged]:
    """The scores and values of the candidates in `asked`, in one request each."""
    nothing: list[float | None] = [None] * len(asked)
    scores = (yield from score([candidates[i].text for i in asked])) if scored else nothing
    values = (yield from value([(so_far, candidates[i]) for i in asked])) if valued else nothing
    return {i: (one_score, one_value) for i, one_score, one_value in zip(asked, scores, values, strict=True)}


def _choose(
    candidates: Sequence[Candidate], judged: Judged, said: Sequence[str], settings: Settings
) -> tuple[int | None, str]:
    """(index of the best candidate, "") or (None, why the answer ends)."""
    if not judged:
        return None, "end" if any(candidate.ended for candidate in candidates) else "repeat"
    first = not said
    if settings.stop == "vote" and not first and _half_end(candidates):
        return None, "vote"
    eligible = list(judged)
    if settings.stop == "reward":
        grounded = [i for i, (one_score, _) in judged.items() if one_score is not None and one_score >= settings.margin]
        if not grounded and not first:
            return None, "reward"
        eligible = grounded or eligible
    guides = _guides(candidates, judged, said, settings.redundancy)
    chosen = best(guides, eligible)
    if settings.stop == "value" and not first and worth(guides[chosen]) < 0:
        return None, "value"
    return chosen, ""


def _half_end(candidates: Sequence[Candidate]) -> bool:
    ends = sum(candidate.ended and not candidate.text for candidate in candidates)
    return 2 * ends >= len(candidates)


def _guides(
    candidates: Sequence[Candidate], judged: Judged, said: Sequence[str], redundancy: float
) -> Mapping[int, float | None]:
    guides = {i: guide(*both) for i, both in judged.items()}
    if not redundancy:
        return guides
    return {
        i: None if one is None else one - redundancy * overlap(candidates[i].text, said) for i, one in guides.items()
    }
