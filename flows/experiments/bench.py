"""What the arms of an experiment share: the benchmark, the base policy, the first round's guide; and one arm's searches.

Everything is a stage of the loop or of a comparison under the same name, so what either computed is not computed again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flows.experiments.contract import varied
from flows.profiles.loading import Profile
from flows.round.guide import RoundGuide, fit_guide, guide_for
from flows.round.measure import chair_of, compared
from flows.round.prepare import CaptionContext, prepare_loop, round_draw
from storage.artifacts import Table
from storage.schema import Comparison
from tasks.analysis.findings import Evidence
from tasks.analysis.observe import observe
from tasks.configs.search import SearchConfig, search_config
from tasks.data.sample import SampleResult, sample
from tasks.evaluate.evaluate import EvaluateResult
from tasks.reward.shape_rewards import RewardsResult
from tasks.search.search import CaptionsResult, search, search_needs
from tasks.stage.plan import Pending
from tasks.value.train_value import ValueResult

# A head on the policy's own states: learned in seconds, so that many of them can be compared.
HEAD = {"reads": "policy_states", "lr": 1e-3, "epochs": 5}


@dataclass(frozen=True)
class Bench:
    """What all arms share, and what guides their searches."""

    context: CaptionContext
    drawn: SampleResult | None = None  # the first round's images and samples
    guide: RoundGuide | None = None

    @property
    def profile(self) -> Profile:
        """The settings of its arms."""
        return self.context.profile

    @property
    def rewards(self) -> RewardsResult:
        """The rewards of the first round's answers."""
        if self.guide is None:
            raise ValueError("this bench has no rewards: prepare it for a search that needs them")
        return self.guide.rewards

    @property
    def value(self) -> ValueResult:
        """V of the first round's answers."""
        if self.guide is None or self.guide.value is None:
            raise ValueError("this bench has no V: prepare it for a search that needs one")
        return self.guide.value


@dataclass(frozen=True)
class Arm:
    """One search of the benchmark's images, measured."""

    name: str
    x: float | None
    result: CaptionsResult
    scores: EvaluateResult


def prepare_bench(profile: Profile, specs: Iterable[str] = (), needs: Iterable[str] = ()) -> Bench:
    """The benchmark, the base policy, and what these searches need to be guided."""
    wanted = frozenset(needs).union(*(search_needs(search_config(profile.search, spec)) for spec in specs))
    return guided(Bench(prepare_loop(profile)), wanted)


def first_round(context: CaptionContext, needs: frozenset[str], number: int = 1) -> tuple[SampleResult, RoundGuide]:
    """A round's images and the base's guide for them."""
    drawn = sample(context.profile.sample, context.source, round_draw(context.profile, number))
    return drawn, fit_guide(context, context.base, drawn, needs)


def guided(bench: Bench, needs: frozenset[str]) -> Bench:
    """The bench with the guide that its profile learns in the first round."""
    if not needs:
        return bench
    drawn, guide = first_round(bench.context, needs)
    return replace(bench, drawn=drawn, guide=guide)


def with_profile(bench: Bench, profile: Profile) -> Bench:
    """The bench under other settings; its guide stays as it is."""
    return replace(bench, context=replace(bench.context, profile=profile))


def with_settings(bench: Bench, **sections: Mapping[str, Any]) -> Bench:
    """The bench with another guide: rewards and V learned under these settings.

    A V that can't rank is measured here and not refused, for that is a finding; a V under the profile's own settings stays
    as it is, so that it is not trained twice.
    """
    profile = varied(bench.profile, **sections)
    if profile != bench.profile:
        profile = varied(profile, value={"min_spearman": -1.0, "min_spread": 0.0})
    return guided(with_profile(bench, profile), frozenset({"value", "scorer", "margin", "weak"}))


def config_of(bench: Bench, spec: str) -> SearchConfig:
    """`NAME:key=value` with the profile's other settings."""
    return search_config(bench.profile.search, spec)


def searched(bench: Bench, name: str, config: SearchConfig) -> CaptionsResult:
    """The benchmark's captions by one search, in one piece: one clock, and its counters as they were."""
    context, benchmark = bench.context, bench.context.benchmark
    guide = guide_for(context, bench.guide, config)
    return search.with_label(name)(
        config, context.base, benchmark.images, benchmark.samples, guide, seed=bench.profile.seed, name=name
    )


def arm(bench: Bench, spec: str, name: str = "", x: float | None = None, config: SearchConfig | None = None) -> Arm:
    """Captions of the benchmark's images by one search, measured.

    Args:
        bench: with the guide.
        spec: what is searched; of `config`, if one is given, only the default name.
        name: of the arm; the spec's if left out.
        x: the swept number.
        config: the search in full.
    """
    config = config_of(bench, spec) if config is None else config
    name = name or spec
    result = searched(bench, name, config)
    return Arm(name, x, result, chair_of(bench.context, result.captions, "base", name))


def wide(bench: Bench, spec: str, width: int, name: str = "", key: str = "candidates") -> Arm:
    """An arm at a number of candidates (`key`), called SPEC@K as in a comparison."""
    joined = f"{spec}{',' if ':' in spec else ':'}{key}={width}"
    return arm(bench, joined, name or f"{spec}@{width}", None if name else float(width))


def evidence(
    bench: Bench,
    measured: Arm,
    against: Sequence[Arm] = (),
    *,
    like: Arm | None = None,
    with_trace: bool = False,
    facts: Mapping[str, Any] | None = None,
) -> Evidence:
    """What an arm measured: CHAIR and work; paired differences; with `seen` how its search went.

    Args:
        bench: where.
        measured: the arm.
        against: arms to be paired with.
        like: an arm whose captions its own are compared with, word by word.
        seen: look at its trace, too.
        facts: more numbers.
    """
    metrics = [measured.scores.metrics]
    if with_trace or like is not None:
        observed = observe.with_label(measured.name)(
            bench.profile.evaluate,
            measured.result.captions,
            measured.result.search_trace,
            bench.context.benchmark.samples,
            bench.context.annotations,
            subject="base",
            decoding=measured.name,
            other=None if like is None else (like.result.captions, like.result.search_trace),
        )
        metrics.append(observed.metrics)
    pairs = {other.name: differences(bench, measured, other) for other in against if other.name != measured.name}
    return Evidence(measured.name, measured.x, tuple(metrics), pairs, measured.result.counters, facts or {})


def differences(bench: Bench, a: Arm, b: Arm) -> Table[Comparison]:
    """The paired comparison of two arms, a - b."""
    return compared(bench.context, a.scores.scores, b.scores.scores, f"{a.name} - {b.name}").comparisons


def value_facts(bench: Bench) -> dict[str, Any]:
    """Rank correlation with the held-out return, and spread, of the bench's V."""
    return {"spearman": bench.value.spearman, "spread": bench.value.spread}


def tokens_of(bench: Bench, measured: Arm) -> float | None:
    """Decoded tokens a caption; None in a plan that doesn't know yet."""
    counters: Any = measured.result.counters
    return None if isinstance(counters, Pending) else counters["decode_tokens"] / bench.profile.evaluate.images


def within(bench: Bench, spec: str, widths: Iterable[int], budget: float | None, key: str = "candidates") -> Arm:
    """The widest of some arms that takes no more tokens than the budget, tried from the widest on; else the narrowest.

    In a plan, which doesn't know tokens yet, the widest.
    """
    narrower = None
    for width in sorted(widths, reverse=True):
        narrower = wide(bench, spec, width, key=key)
        tokens = tokens_of(bench, narrower)
        if tokens is None or budget is None or tokens <= budget:
            break
    assert narrower is not None
    return narrower
