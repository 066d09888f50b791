"""What the experiments on tuning share: a policy tuned one way or another, measured by its greedy captions and its drift."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from flows.experiments.contract import varied
from flows.profiles.loading import Profile, load_profile, locate
from flows.round.guide import Ground
from flows.round.improvement import Model, drifted, general_answers
from storage.artifacts import StageOutput
from tasks.analysis.answer_shares import sameness
from tasks.analysis.excerpts import excerpt
from tasks.analysis.findings import Evidence
from tasks.configs.evaluate import DriftConfig
from tasks.evaluate.evaluate import compare

BASE = "base"
DEMO = "demo-cot"  # the shipped profile whose policy also answers questions


def told(
    profile: Profile, ground: Ground, model: Model, against: Sequence[Model], *, drift: bool = True, **facts: Any
) -> Evidence:
    """What a policy's greedy captions measure: CHAIR, how far they moved from the base's, paired differences.

    Args:
        profile: of the benchmark.
        ground: what all stand on.
        model: measured.
        against: the base first, then others to be paired with.
        drift: measure what moved from the base, too.
        facts: more numbers.
    """
    metrics = [model.scores["metrics"]]
    if drift:
        unbound = varied(profile, drift=DriftConfig(questions=profile.drift.questions).model_dump())
        metrics.append(drifted(unbound, ground, against[0], model)["metrics"])
    pairs = {
        other.name: compare(
            profile.evaluate, model.scores["scores"], other.scores["scores"], label=f"{model.name} - {other.name}",
            runtime=profile.runtime,
        )["comparisons"]
        for other in against
    }  # fmt: skip
    return Evidence(model.name, None, tuple(metrics), pairs, facts=facts)


def with_accuracy(profile: Profile, ground: Ground, model: Model, base: Model, one: Evidence) -> Evidence:
    """The evidence with how many short questions the policy answers rightly, by kind, and how many as the base does."""
    said = general_answers(profile, ground, model)
    kinds = [f"accuracy_{kind}" for kind in profile.questions.kinds]
    kept = excerpt(said["metrics"], ["accuracy", *kinds], label=model.name, runtime=profile.runtime)
    metrics = [*one.metrics, kept["excerpt"]]
    if model is not base:
        before = general_answers(profile, ground, base)
        same = sameness(
            profile.evaluate, said["scores"], before["scores"], subject=model.name, label=model.name,
            runtime=profile.runtime,
        )  # fmt: skip
        metrics.append(same["metrics"])
    return one._replace(metrics=tuple(metrics))


def examples_of(tuned: StageOutput) -> dict[str, Any]:
    """How many examples a policy learned, as a fact."""
    counters: Any = tuned.counters
    return {"examples": counters.get("examples")}


def on_drawn_scenes(profile: Profile) -> bool:
    """Whether a profile learns from the demo's scenes."""
    return profile.data.train.kind == profile.data.benchmark.kind == "demo"


def answering(profile: Profile) -> Profile:
    """The profile with a policy that can answer questions: on the demo the second one, for the first only describes."""
    only_describes = locate("deployments/demo/policy") == locate(profile.policy.checkpoint)
    if not (only_describes and on_drawn_scenes(profile)):
        return profile
    return varied(profile, policy=second_policy(profile))


def second_policy(profile: Profile) -> dict[str, Any]:
    """Settings of the demo's second policy."""
    other = load_profile(DEMO)
    return cast(dict[str, Any], {**other.policy.model_dump(), "dtype": profile.policy.dtype})
