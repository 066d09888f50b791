"""What a search by V is held against: guides that know less, and the same tokens or the same end without V. Order only.

Without these beside it, a figure of VisVM or ViMaR says nothing about V: a filter, an end or six candidates may have made it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

from flows.profiles.varied import UNCHECKED_VALUE, changed, varied
from flows.round.guide import RoundGuide, guide_for, value_of
from flows.round.measure import Model, chair_of, compared
from flows.round.prepare import CaptionContext, LoopContext
from storage.artifacts import Table
from storage.schema import Caption, Score
from tasks.configs.evaluate import BEST_OF, CLIP_PRM, CONTROL, GREEDY_END, RANDOM_V, V_GAMMA_0
from tasks.configs.search import MOST_CANDIDATES, SearchConfig, search_name
from tasks.data.sample import SampleResult
from tasks.search.search import CaptionsResult, search, search_needs
from tasks.stage.plan import Pending

CONTROLLED = ("visvm", "vimar")  # the strategies that a value model guides
T = TypeVar("T")


class Measured(NamedTuple):
    """The search that controls stand beside."""

    result: CaptionsResult
    scores: Table[Score]


class Control(NamedTuple):
    """A search beside the one that is measured."""

    title: str
    changes: Mapping[str, Any]  # of the search's settings
    gamma: float | None = None  # of its V; None: the round's


def controls_of(config: SearchConfig) -> list[Control]:
    """The controls of a search by V; none for another search, or for one that is a control itself.

    Best of n at equal tokens is not among them: its n is known only after the search. ViMaR has no end of its own, so that
    greedy with the same end is greedy.
    """
    if config.strategy not in CONTROLLED or config.guide != "value" or config.choose != "best":
        return []
    controls = []
    if "value" in search_needs(config):
        controls += [Control(RANDOM_V, {"guide": "random"}), Control(V_GAMMA_0, {}, 0.0)]
    # The scale of end_value is V's; CLIP-PRM's own default is the margin.
    controls.append(Control(CLIP_PRM, {"strategy": "clip_prm", "options": {}, "by": None, "end_value": None}))
    if config.strategy == "visvm" and config.greedy and not config.published:
        controls.append(Control(GREEDY_END, {"choose": "greedy"}))
    return controls


def best_of(config: SearchConfig, count: int) -> SearchConfig:
    """Best of `count` answers by the scorer's score, which no V guides."""
    plain: dict[str, Any] = {
        "strategy": "best_of_n",
        "options": {},
        "by": None,
        "published": False,
        "guide": "value",
        "choose": "best",
    }
    return changed(config, {**plain, "candidates": count})


def with_gamma(context: LoopContext, guide: RoundGuide, drawn: SampleResult, gamma: float) -> RoundGuide:
    """The guide with a second V of another discount, of the very answers that the first one learned of."""
    profile = varied(context.profile, value={**UNCHECKED_VALUE, "gamma": gamma})  # a control's V may be a bad one
    varying = replace(context, profile=profile)
    return replace(guide, value=value_of(varying, guide.policy, drawn, guide.learned, f"gamma {gamma:g}"))


def tokens_each(searched: CaptionsResult) -> float | None:
    """Decoded tokens per caption; None in a plan, where they are not known."""
    counters: Any = searched.counters
    return None if isinstance(counters, Pending) else counters["decode_tokens"] / (searched.captions.rows or 1)


def widest_equal(
    searched: Callable[[int], T], tokens: Callable[[T], float | None], budget: float, start: int, most: float = math.inf
) -> tuple[int, T]:
    """The largest n whose search decodes no more tokens a caption than the budget, with its search; n = 1 if none does.

    Tokens grow nearly as n, so the next n to try follows from the last one: two searches are mostly enough. In a plan, where
    tokens are not known, the first n.

    Args:
        searched: searches with n candidates.
        tokens: of a search, per caption.
        budget: tokens per caption.
        start: the first n to try.
        most: the largest.
    """
    tried: dict[int, T] = {}
    n, within, over = start, 0, 0
    while n not in tried:
        tried[n] = searched(n)
        used = tokens(tried[n])
        if not used:
            break
        if used <= budget:
            within = n
        else:
            over = n
        n = max(1, within, int(min(most, budget * n / used)))
        n = min(n, max(1, over - 1)) if over else n
    return n, tried[n]


def measure_controls(
    context: CaptionContext, guide: RoundGuide, drawn: SampleResult, base: Model, measured: Measured
) -> None:
    """The controls of the profile's search on the benchmark, each against greedy captions and against the search itself.

    Args:
        context: of the loop.
        guide: of the first round.
        drawn: the round's samples; the second V learns on the answers to them.
        base: the base with its greedy captions.
        measured: the profile's search of the benchmark.
    """
    config = context.profile.search
    guides: dict[float | None, RoundGuide] = {None: guide}
    controls = controls_of(config)
    for control in controls:
        if control.gamma is not None and control.gamma not in guides:
            guides[control.gamma] = with_gamma(context, guide, drawn, control.gamma)
        title, own = f"{CONTROL}{control.title}", changed(config, control.changes)
        score_control(context, base, measured, title, search_as(context, guides[control.gamma], own, title).captions)
    if controls:
        title, result = equal_tokens(context, guide, measured.result)
        score_control(context, base, measured, title, result.captions)


def search_as(context: CaptionContext, guide: RoundGuide, config: SearchConfig, title: str) -> CaptionsResult:
    """The base's captions of the benchmark by another search."""
    benchmark, handle = context.benchmark, guide_for(context, guide, config)
    return search.with_label(f"base {title}").over_shards(
        config, guide.policy, benchmark.images, benchmark.samples, handle, seed=context.profile.seed, name=title
    )


def equal_tokens(context: CaptionContext, guide: RoundGuide, measured: CaptionsResult) -> tuple[str, CaptionsResult]:
    """Best of as many answers as decode no more tokens than the search did, with its title."""
    config, budget = context.profile.search, tokens_each(measured)
    if budget is None:  # in a plan, which shows one search with as many candidates
        return CONTROL + BEST_OF.format(n="?", tokens="equal"), search_as(
            context, guide, best_of(config, config.candidates), f"{CONTROL}best of n"
        )
    n, result = widest_equal(
        lambda count: search_as(context, guide, best_of(config, count), f"{CONTROL}best of {count}"),
        tokens_each,
        budget,
        config.candidates,
        MOST_CANDIDATES,
    )
    used = tokens_each(result)
    fits = "equal" if used is None or used <= budget else "more"
    return CONTROL + BEST_OF.format(n=n, tokens=fits), result


def score_control(
    context: CaptionContext, base: Model, measured: Measured, title: str, captions: Table[Caption]
) -> None:
    """CHAIR of a control's captions, and its differences."""
    scores = chair_of(context, captions, "base", title).scores
    compared(context, scores, base.scores.scores, f"base {title} - greedy")
    compared(context, measured.scores, scores, f"base {search_name(context.profile.search)} - {title}")
