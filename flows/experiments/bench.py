"""What the arms of an experiment share: the benchmark, the base policy, the first round's guide; and one arm's searches.

Everything is a stage of the loop or of a comparison under the same name, so what either computed is not computed again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from flows.experiments.comparison import searched
from flows.experiments.contract import varied
from flows.profiles.loading import Profile
from flows.round.guide import Ground, Guide, lay_ground, learn_guide
from flows.round.improvement import scores_of
from storage.artifacts import ArtifactRef, StageOutput
from tasks.analysis.findings import Evidence
from tasks.analysis.observe import observe
from tasks.configs.search import SearchConfig, search_config
from tasks.evaluate.evaluate import compare
from tasks.report.comparison import Contender
from tasks.search.search import search_needs
from tasks.stage.plan import Pending

# A head on the policy's own states: learned in seconds, so that many of them can be compared.
HEAD = {"reads": "policy_states", "lr": 1e-3, "epochs": 5}


class Bench(NamedTuple):
    """The ground of all arms, and what guides their searches."""

    profile: Profile
    ground: Ground
    base: ArtifactRef
    drawn: StageOutput | None  # the first round's images and samples
    guide: Guide | None


class Arm(NamedTuple):
    """One search of the benchmark's images, measured."""

    name: str
    x: float | None
    found: StageOutput
    scores: StageOutput


def lay_bench(profile: Profile, specs: Iterable[str] = (), needs: Iterable[str] = ()) -> Bench:
    """The benchmark, the base policy, and what these searches need to be guided."""
    ground, base = lay_ground(profile)
    wanted = frozenset(needs).union(*(search_needs(search_config(profile.search, spec)) for spec in specs))
    return guided(Bench(profile, ground, base, None, None), wanted)


def guided(bench: Bench, needs: frozenset[str]) -> Bench:
    """The bench with the guide that its profile learns in the first round."""
    if not needs:
        return bench
    drawn, guide = learn_guide(bench.profile, bench.ground, bench.base, 1, needs)
    return bench._replace(drawn=drawn, guide=guide)


def with_settings(bench: Bench, **sections: Mapping[str, Any]) -> Bench:
    """The bench with another guide: rewards and V learned under these settings.

    A V that can't rank is measured here and not refused, for that is a finding; a V under the profile's own settings stays
    as it is, so that it is not trained twice.
    """
    profile = varied(bench.profile, **sections)
    if profile != bench.profile:
        profile = varied(profile, value={"min_spearman": -1.0, "min_spread": 0.0})
    return guided(bench._replace(profile=profile), frozenset({"value", "scorer", "margin", "weak"}))


def config_of(bench: Bench, spec: str) -> SearchConfig:
    """`NAME:key=value` with the profile's other settings."""
    return search_config(bench.profile.search, spec)


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
    found = searched(bench.profile, bench.ground, bench.base, bench.guide, Contender(name, config))
    return Arm(name, x, found, scores_of(bench.profile, bench.ground, found, "base", name))


def wide(bench: Bench, spec: str, width: int, name: str = "", key: str = "candidates") -> Arm:
    """An arm at a number of candidates (`key`), called SPEC@K as in a comparison."""
    joined = f"{spec}{',' if ':' in spec else ':'}{key}={width}"
    return arm(bench, joined, name or f"{spec}@{width}", None if name else float(width))


def evidence(
    bench: Bench,
    one: Arm,
    against: Sequence[Arm] = (),
    *,
    like: Arm | None = None,
    seen: bool = False,
    facts: Mapping[str, Any] | None = None,
) -> Evidence:
    """What an arm measured: CHAIR and work; paired differences; with `seen` how its search went.

    Args:
        bench: where.
        one: the arm.
        against: arms to be paired with.
        like: an arm whose captions its own are compared with, word by word.
        seen: look at its trace, too.
        facts: more numbers.
    """
    profile, ground = bench.profile, bench.ground
    metrics = [one.scores["metrics"]]
    if seen or like is not None:
        other: dict[str, Any] = {}
        if like is not None:
            other = {"other_captions": like.found["captions"], "other_trace": like.found["search_trace"]}
        looked = observe(
            profile.evaluate, one.found["captions"], one.found["search_trace"], ground.bench["samples"],
            ground.truth["annotations"], subject="base", decoding=one.name, runtime=profile.runtime, label=one.name,
            **other,
        )  # fmt: skip
        metrics.append(looked["metrics"])
    pairs = {other.name: differences(bench, one, other) for other in against if other.name != one.name}
    return Evidence(one.name, one.x, tuple(metrics), pairs, one.found.counters, facts or {})


def differences(bench: Bench, one: Arm, other: Arm) -> ArtifactRef:
    """The paired comparison of two arms."""
    label = f"{one.name} - {other.name}"
    profile = bench.profile
    paired = compare(
        profile.evaluate, one.scores["scores"], other.scores["scores"], label=label, runtime=profile.runtime
    )
    return paired["comparisons"]


def rewards_of(bench: Bench) -> StageOutput:
    """What the labelling of the bench's answers gave."""
    if bench.guide is None:
        raise ValueError("this bench has no rewards: lay it for a search that needs them")
    return bench.guide.rewards


def value_of(bench: Bench) -> StageOutput:
    """What the training of the bench's V gave."""
    if bench.guide is None or bench.guide.value is None:
        raise ValueError("this bench has no V: lay it for a search that needs one")
    return bench.guide.value


def value_facts(bench: Bench) -> dict[str, Any]:
    """Rank correlation with the held-out return, and spread, of the bench's V."""
    facts = value_of(bench).facts
    return {"spearman": facts["spearman"], "spread": facts["spread"]}


def tokens_of(bench: Bench, one: Arm) -> float | None:
    """Decoded tokens a caption; None in a plan that doesn't know yet."""
    count: Any = one.found.counters
    return None if isinstance(count, Pending) else count["decode_tokens"] / bench.profile.evaluate.images


def within(bench: Bench, spec: str, widths: Iterable[int], budget: float | None, key: str = "candidates") -> Arm:
    """The widest of some arms that takes no more tokens than the budget, tried from the widest on; else the narrowest.

    In a plan, which doesn't know tokens yet, the widest.
    """
    found = None
    for width in sorted(widths, reverse=True):
        found = wide(bench, spec, width, key=key)
        tokens = tokens_of(bench, found)
        if tokens is None or budget is None or tokens <= budget:
            break
    assert found is not None
    return found
