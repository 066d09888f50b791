"""MRGD: sentence-level search by two rewards, correctness and completeness, weighed at search time (arXiv 2508.11616).

There a tuned reward model gives correctness, a number from 0 to 1. Here it is the scorer, or V, on such a scale; completeness
is the share of the image's detected objects that the answer so far, the candidate included, names.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tasks.core.search.contract import Judgements, SearchResult, Settings, Strategy, Task
from tasks.core.search.guided import grow_by
from tasks.core.search.options import own_options
from tasks.core.search.requests import Candidate, Search, complete, score, value


@dataclass(frozen=True)
class _Judge:
    """The mixed guide of candidates."""

    weight: float  # w, of correctness
    by_value: bool  # correctness is V's, else the scorer's
    scored: bool
    center: float  # a score, or a value, whose correctness is a half
    spread: float  # deviations of this size from there

    def correctness(self, judged: float) -> float:
        """A score, or a value, on a scale from 0 to 1: the logistic function of its distance from the center."""
        return 0.5 + 0.5 * math.tanh((judged - self.center) / self.spread / 2)

    def mixed(self, judged: float | None, added: float) -> float | None:
        """w times correctness and 1 - w times the share of objects added; None where correctness counts and is unknown."""
        if not self.weight:
            return added
        return None if judged is None else self.weight * self.correctness(judged) + (1 - self.weight) * added

    def __call__(self, so_far: str, candidates: Sequence[Candidate], indices: Sequence[int]) -> Search[Judgements]:
        """(score, mixed guide) of the candidates at `indices`, in one request of each kind."""
        texts = [candidates[i].text for i in indices]
        scores: Sequence[float | None] = [None] * len(texts)
        judged, added = scores, [0.0] * len(texts)
        if self.scored:
            judged = scores = yield from score(texts, [so_far] * len(texts))
        if self.weight and self.by_value:
            judged = yield from value([(so_far, candidates[i]) for i in indices])
        if self.weight < 1 and texts:
            before, *after = yield from complete([(so_far, ""), *((so_far, text) for text in texts)])
            added = [share - before for share in after]
        guides = [self.mixed(*pair) for pair in zip(judged, added, strict=True)]
        return dict(zip(indices, zip(scores, guides, strict=True), strict=True))


def search(task: Task) -> Search[SearchResult]:
    """Grow an answer along the candidates with the largest w * correctness + (1 - w) * completeness; option `w` (0.5).

    Correctness is the logistic function of (score - margin) / `reward_std`, an option that the run measures on its own
    answers; with `by="value"` of V / `reward_std`. Completeness so far is the same for all candidates of a step and for the
    end, so it is left out: a candidate's guide is w * correctness + (1 - w) * the share of objects that it adds.

    Ending adds no object, and is as correct as a sentence of `end_value` (the margin; by value, what ending is worth on V's
    scale): its guide is w * correctness(end_value). So with w = 1 the search is CLIP-PRM (by value: VisVM), and with w = 0 it
    ends where the policy proposes to and no candidate adds an object. The rules of ending are those of `grow_by`.

    The trace has the score as score and the guide as value. With w = 0 nothing is scored, with w = 1 nothing detected.

    Raises:
        ValueError: `w` outside 0 to 1; answers that all score alike; `by` judge; `published`, since nothing of the released
            code is reproduced.
    """
    settings = task.settings
    own = _options(settings)
    by_value = settings.by == "value"
    judge = _Judge(
        weight=own["w"],
        by_value=by_value,
        scored="scorer" in needs(settings),
        center=0.0 if by_value else settings.margin,
        spread=1.0 if own["reward_std"] is None else own["reward_std"],
    )
    ending = settings.end_value if settings.end_value is not None else judge.center
    worth = judge.weight * judge.correctness(ending) if judge.weight else 0.0
    return grow_by(replace(task, settings=replace(settings, end_value=worth, options={})), judge)


def needs(settings: Settings) -> frozenset[str]:
    """What gives correctness, unless w is 0, and the detected objects, unless w is 1.

    Raises:
        ValueError: as `search`.
    """
    own = _options(settings)
    needed: set[str] = set()
    if own["w"] and settings.by == "value":
        needed |= {"value", "end_value"} if settings.lacks_end_value else {"value"}
    elif own["w"]:
        needed |= {"scorer", "margin"}
    if own["w"] and own["reward_std"] is None:
        needed |= {"answers"}
    if own["w"] < 1:
        needed |= {"objects"}
    if settings.filter == "margin":
        needed |= {"scorer", "margin"}
    return frozenset(needed)


def _options(settings: Settings) -> dict[str, Any]:
    own = own_options(settings, w=0.5, reward_mean=None, reward_std=None)
    if not 0 <= own["w"] <= 1:
        raise ValueError(f"option w is {own['w']}: want the weight of correctness, 0 to 1")
    if own["reward_std"] is not None and not 0 < own["reward_std"] < math.inf:
        raise ValueError(
            f"reward_std is {own['reward_std']}: correctness is measured in deviations of the run's answers, which must "
            "differ in score; set option reward_std, or w=0"
        )
    if settings.by == "judge":
        raise ValueError("mrgd is guided by a number: want by score or value, not judge")
    if settings.published:
        raise ValueError("nothing of the released code of mrgd is reproduced: set search.published to false")
    return own


mrgd = Strategy(search, needs)
