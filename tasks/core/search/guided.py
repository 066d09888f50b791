"""Sentence-level search: VisVM (arXiv 2412.03704, section 3.3) with a value model, CLIP-PRM with the scorer in its place.

Each step proposes sentences, keeps the best by the guide, and goes on from it. Departs from the released code, which ends when
its last sampled candidate repeats, never compares stopping with going on, and cuts sentences at every full stop:
a sentence that was said is no candidate, and the rule for stopping is named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tasks.core.search.contract import Candidate, Found, Propose, ScoreSentences, TraceRow, ValueSentences, fresh

STOP_RULES = ("reward", "vote", "chosen")


def guided_search(
    propose: Propose,
    score: ScoreSentences,
    value: ValueSentences | None,
    *,
    slots: Sequence[int],
    stop: str,
    margin: float,
    max_sentences: int,
) -> dict[int, Found]:
    """Grow a caption for every slot, sentence by sentence, along the best candidate.

    Args:
        propose: next sentences.
        score: the scorer; decides the choice where there is no value model, and the `reward` stop always.
        value: the value model that decides the choice; None for CLIP-PRM.
        slots: which captions to grow.
        stop: `reward`: no new candidate reaches `margin` (the first sentence is exempt, so that no caption is empty);
            `vote`: at least half of the candidates end the answer; `chosen`: the chosen one ends it. In all three a chosen
            sentence after which the policy itself ended its answer is the last.
        margin: the score that `reward` asks for (tau of the rewards).
        max_sentences: hard limit.
    """
    if stop not in STOP_RULES:
        raise ValueError(f"stop is {stop!r}: want one of {', '.join(STOP_RULES)}")
    found = {slot: Found() for slot in slots}
    kept: dict[int, Candidate | None] = dict.fromkeys(slots)
    step = 0
    while kept:
        proposals = propose(kept)
        judged = _judge(proposals, found, score, value)
        kept = {}
        for slot, candidates in proposals.items():
            chosen, reason = _choose(candidates, judged[slot], stop=stop, margin=margin, first=step == 0)
            _record(found[slot], step, candidates, judged[slot], chosen)
            if chosen is None:
                found[slot].stop(reason)
                continue
            found[slot].sentences.append(candidates[chosen].text)
            if candidates[chosen].ended:
                found[slot].stop("end")
            elif step + 1 == max_sentences:
                found[slot].stop("max_sentences")
            else:
                kept[slot] = candidates[chosen]
        step += 1
    return found


Judged = dict[int, tuple[float | None, float | None]]  # candidate index -> (score, value)


def _judge(
    proposals: Mapping[int, list[Candidate]],
    found: Mapping[int, Found],
    score: ScoreSentences,
    value: ValueSentences | None,
) -> dict[int, Judged]:
    """Score, and value, every new candidate of every slot, each in one batch."""
    asked = [(slot, i) for slot, candidates in proposals.items() for i in fresh(candidates, found[slot].sentences)]
    scores = score([(slot, proposals[slot][i].text) for slot, i in asked]) if asked else []
    values: Sequence[float | None] = [None] * len(asked)
    if value is not None and asked:
        values = value([(slot, found[slot].text, proposals[slot][i].text) for slot, i in asked])
    judged: dict[int, Judged] = {slot: {} for slot in proposals}
    for (slot, i), one_score, one_value in zip(asked, scores, values, strict=True):
        judged[slot][i] = (one_score, one_value)
    return judged


def _choose(
    candidates: Sequence[Candidate], judged: Judged, *, stop: str, margin: float, first: bool
) -> tuple[int | None, str]:
    """(index of the best candidate, "") or (None, why the caption ends)."""
    if not judged:
        return None, "end" if any(c.ended for c in candidates) else "repeat"
    ends = sum(c.ended and not c.text for c in candidates)
    if stop == "vote" and not first and 2 * ends >= len(candidates):
        return None, "vote"
    eligible = list(judged)
    if stop == "reward":
        grounded = [i for i in judged if (judged[i][0] is not None and judged[i][0] >= margin)]  # type: ignore[operator]
        if not grounded and not first:
            return None, "reward"
        eligible = grounded or eligible
    # On equal terms the earlier candidate wins: greedy comes first.
    return max(eligible, key=lambda i: (_guide(judged[i]), -i)), ""


def _guide(judgement: tuple[float | None, float | None]) -> float:
    score, value = judgement
    if value is not None:
        return value
    return score if score is not None else float("-inf")


def _record(found: Found, step: int, candidates: Sequence[Candidate], judged: Judged, chosen: int | None) -> None:
    for index, candidate in enumerate(candidates):
        score, value = judged.get(index, (None, None))
        found.trace.append(TraceRow(step, index, candidate, score, value, chosen=index == chosen))
