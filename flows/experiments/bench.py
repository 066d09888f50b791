"""What the arms of an experiment share: the benchmark, the base policy and the first round's guide; and how an arm is measured.

Every call is a stage of the loop, or of a comparison, under the same label, so that cached results are reused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flows.profiles.loading import Profile
from flows.profiles.varied import UNCHECKED_VALUE, varied
from flows.round.controls import tokens_each, with_gamma
from flows.round.guide import RoundGuide, fit_guide, guide_for
from flows.round.measure import chair_of, compared
from flows.round.prepare import CaptionContext, prepare_loop, round_draw
from storage.artifacts import Table
from storage.schema import Comparison
from tasks.analysis.findings import Evidence
from tasks.analysis.observe import observe
from tasks.configs.search import SearchConfig, extended, search_config, search_name
from tasks.data.sample import SampleResult, sample
from tasks.evaluate.evaluate import EvaluateResult
from tasks.reward.shape_rewards import RewardsResult
from tasks.search.search import CaptionsResult, search, search_needs
from tasks.value.train_value import ValueResult

# A head on the policy's own states: trained in seconds, so that many can be compared.
HEAD = {"reads": "policy_states", "lr": 1e-3, "epochs": 5}
# What ends a guided search, whatever the profile says: a vote, so that guides differ in what they choose and in nothing else;
# or the guide weighs the end, too.
VOTE, ACTION = "end=vote,filter=none", "end=action,filter=none"


@dataclass(frozen=True)
class Bench:
    """What all arms share: the benchmark, the policy, and the guide of their searches."""

    context: CaptionContext
    drawn: SampleResult | None = None  # the first round's images and samples
    guide: RoundGuide | None = None

    @property
    def profile(self) -> Profile:
        """The settings of the arms."""
        return self.context.profile

    @property
    def rewards(self) -> RewardsResult:
        """The rewards of the first round's rollouts."""
        if self.guide is None:
            raise ValueError("this bench has no rewards: prepare it for a search that needs them")
        return self.guide.rewards

    @property
    def value(self) -> ValueResult:
        """V, trained on the first round's rollouts."""
        if self.guide is None or self.guide.value is None:
            raise ValueError("this bench has no V: prepare it for a search that needs one")
        return self.guide.value


@dataclass(frozen=True)
class Arm:
    """One search over the benchmark's images, with its scores."""

    name: str
    x: float | None
    result: CaptionsResult
    scores: EvaluateResult


def prepare_bench(profile: Profile, specs: Iterable[str] = (), needs: Iterable[str] = ()) -> Bench:
    """The benchmark, the base policy, and the guide that these searches need."""
    wanted = frozenset(needs).union(*(search_needs(search_config(profile.search, spec)) for spec in specs))
    return guided(Bench(prepare_loop(profile)), wanted)


def first_round(context: CaptionContext, needs: frozenset[str], number: int = 1) -> tuple[SampleResult, RoundGuide]:
    """A round's samples, and the guide fitted to the base policy's rollouts of them."""
    drawn = sample(context.profile.sample, context.source, round_draw(context.profile, number), context.base)
    return drawn, fit_guide(context, context.base, drawn, needs)


def guided(bench: Bench, needs: frozenset[str]) -> Bench:
    """The bench with the guide that its profile fits in the first round."""
    if not needs:
        return bench
    drawn, guide = first_round(bench.context, needs)
    return replace(bench, drawn=drawn, guide=guide)


def with_profile(bench: Bench, profile: Profile) -> Bench:
    """The bench with other settings and the same guide."""
    return replace(bench, context=replace(bench.context, profile=profile))


def with_settings(bench: Bench, **sections: Mapping[str, Any]) -> Bench:
    """The bench with another guide: rewards and V fitted under these settings.

    The health check of V is off, because a V that cannot rank is a result here. The profile's own settings are not changed,
    so that their V is not trained twice.
    """
    profile = varied(bench.profile, **sections)
    if profile != bench.profile:
        profile = varied(profile, value=UNCHECKED_VALUE)
    return guided(with_profile(bench, profile), frozenset({"value", "scorer", "margin", "weak"}))


def with_discount(bench: Bench, gamma: float | None) -> Bench:
    """The bench with a V of another discount, of the same rollouts; None: its own V."""
    if gamma is None or gamma == bench.profile.value.gamma:
        return bench
    if bench.guide is None or bench.drawn is None:
        raise ValueError("this bench has no rollouts: prepare it for a search that needs V")
    return replace(bench, guide=with_gamma(bench.context, bench.guide, bench.drawn, gamma))


def config_of(bench: Bench, spec: str) -> SearchConfig:
    """The search that `NAME:key=value` describes, with the profile's other settings."""
    return search_config(bench.profile.search, spec)


def searched(bench: Bench, name: str, config: SearchConfig) -> CaptionsResult:
    """Captions of the benchmark's images by one search, in a single call: its time and counters are of all of them."""
    context, benchmark = bench.context, bench.context.benchmark
    guide = guide_for(context, bench.guide, config)
    return search.with_label(name)(
        config, context.base, benchmark.images, benchmark.samples, guide, seed=bench.profile.seed, name=name
    )


def arm(bench: Bench, spec: str, name: str = "", x: float | None = None, config: SearchConfig | None = None) -> Arm:
    """Captions of the benchmark's images by one search, scored.

    Args:
        bench: with the guide.
        spec: the search, `NAME:key=value`; if `config` is given, only the default for `name`.
        name: the arm's name; the spec if left out.
        x: the swept number.
        config: the complete settings of the search.
    """
    config = config_of(bench, spec) if config is None else config
    name = name or search_name(config, spec)
    result = searched(bench, name, config)
    return Arm(name, x, result, chair_of(bench.context, result.captions, "base", name))


def arm_at_width(bench: Bench, spec: str, width: int, name: str = "", key: str = "candidates") -> Arm:
    """An arm at a width (a number of candidates, or of what `key` names), called SPEC@K as in a comparison."""
    return arm(bench, extended(spec, f"{key}={width}"), name or f"{spec}@{width}", None if name else float(width))


def evidence(
    bench: Bench,
    measured: Arm,
    against: Sequence[Arm] = (),
    *,
    like: Arm | None = None,
    with_trace: bool = False,
    facts: Mapping[str, Any] | None = None,
) -> Evidence:
    """The evidence of an arm: CHAIR, work, paired differences, and optionally statistics of its search trace.

    Args:
        bench: the bench of the arm.
        measured: the arm.
        against: arms that it is paired with.
        like: an arm whose captions and choices are compared with its own.
        with_trace: add statistics of the search trace.
        facts: further numbers.
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
    """The paired comparison of two arms: a - b, by image."""
    return compared(bench.context, a.scores.scores, b.scores.scores, f"{a.name} - {b.name}").comparisons


def value_facts(bench: Bench) -> dict[str, Any]:
    """Rank correlation of the bench's V with held-out returns, within an image and a position and pooled, and its spread."""
    value = bench.value
    return {"rank_within": value.health.get("rank_within"), "spearman": value.spearman, "spread": value.spread}


def captions_of(measured: Arm) -> int:
    """Captions that the search wrote; there are fewer than images wanted where some can't be read."""
    return measured.result.captions.rows or 1


def tokens_of(measured: Arm) -> float | None:
    """Decoded tokens per caption; None in a plan, where they are not known."""
    return tokens_each(measured.result)


def widest_within(bench: Bench, spec: str, widths: Iterable[int], budget: float | None, key: str = "candidates") -> Arm:
    """The widest arm of a search within the budget, as `widest_of`."""
    return widest_of(lambda width: arm_at_width(bench, spec, width, key=key), widths, budget)


def widest_of(measured: Callable[[int], Arm], widths: Iterable[int], budget: float | None) -> Arm:
    """The widest arm within the budget (decoded tokens per caption), tried from the widest down; if none is, the narrowest.

    In a plan, where tokens are not known, the widest.
    """
    narrower = None
    for width in sorted(widths, reverse=True):
        narrower = measured(width)
        tokens = tokens_of(narrower)
        if tokens is None or budget is None or tokens <= budget:
            break
    assert narrower is not None
    return narrower
