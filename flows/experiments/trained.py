"""What the training experiments share: how a trained policy's greedy captions and its drift are measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from flows.profiles.loading import Profile, load_profile, locate
from flows.profiles.varied import varied
from flows.round.measure import Model, compared, drift_of, general_answers
from flows.round.prepare import CaptionContext
from tasks.analysis.answer_shares import sameness
from tasks.analysis.excerpts import excerpt
from tasks.analysis.findings import Evidence
from tasks.configs.evaluate import DriftConfig
from tasks.configs.train import SftConfig, switch_method
from tasks.train.training import TrainResult

BASE = "base"
DEMO = "demo-cot"  # the shipped profile whose policy also answers questions


def evidence_of(
    context: CaptionContext, model: Model, against: Sequence[Model], *, drift: bool = True, **facts: Any
) -> Evidence:
    """The evidence of a policy's greedy captions: CHAIR, drift from the base, paired differences.

    Args:
        context: with the benchmark.
        model: the measured policy.
        against: the base, then other policies that it is paired with.
        drift: add the drift from the base.
        facts: further numbers.
    """
    metrics = [model.scores.metrics]
    if drift:
        questions = context.profile.drift.questions
        unbound = varied(context.profile, drift=DriftConfig(questions=questions).model_dump())
        metrics.append(drift_of(replace(context, profile=unbound), model, against[0]).metrics)
    pairs = {
        other.name: compared(
            context, model.scores.scores, other.scores.scores, f"{model.name} - {other.name}"
        ).comparisons
        for other in against
    }
    return Evidence(model.name, None, tuple(metrics), pairs, facts=facts)


def with_accuracy(context: CaptionContext, model: Model, base: Model, measured: Evidence) -> Evidence:
    """The evidence with the accuracy on short questions, by kind, and the share of answers that equal the base's."""
    profile = context.profile
    answers = general_answers(context, model)
    kinds = [f"accuracy_{kind}" for kind in profile.questions.kinds]
    part = excerpt.with_label(model.name)(answers.metrics, ["accuracy", *kinds])
    metrics = [*measured.metrics, part.excerpt]
    if model is not base:
        before = general_answers(context, base)
        same = sameness.with_label(model.name)(profile.evaluate, answers.scores, before.scores, subject=model.name)
        metrics.append(same.metrics)
    return replace(measured, metrics=tuple(metrics))


def examples_of(trained: TrainResult) -> dict[str, Any]:
    """The number of training examples, as a fact."""
    counters: Any = trained.counters
    return {"examples": counters.get("examples")}


def supervised(profile: Profile) -> Profile:
    """The profile with supervised fine-tuning and its other training settings unchanged."""
    return profile.model_copy(update={"finetune": switch_method(profile.finetune, SftConfig)})


def on_drawn_scenes(profile: Profile) -> bool:
    """Whether a profile trains and is measured on the demo's scenes."""
    return profile.data.train.kind == profile.data.benchmark.kind == "demo"


def answering(profile: Profile) -> Profile:
    """The profile with a policy that can answer questions: on the demo the second policy, because the first only describes."""
    only_describes = locate("deployments/demo/policy") == locate(profile.policy.checkpoint)
    if not (only_describes and on_drawn_scenes(profile)):
        return profile
    return varied(profile, policy=second_policy(profile))


def second_policy(profile: Profile) -> dict[str, Any]:
    """Settings of the demo's second policy."""
    other = load_profile(DEMO)
    return {**other.policy.model_dump(), "dtype": profile.policy.dtype}
