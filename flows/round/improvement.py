"""One round of self-training, in the order of a method section. Order only: every line is a stage."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

from flows.profiles.loading import Profile
from flows.round.guide import Ground, Guide, learn_guide
from flows.round.train import greedy_answers, tune, tuning_needs
from storage.artifacts import ArtifactRef, StageOutput
from tasks.data.questions import ask, questions_digest
from tasks.data.sample import open_source, take
from tasks.evaluate.answers import evaluate_answers
from tasks.evaluate.drift import drift
from tasks.evaluate.evaluate import compare, evaluate
from tasks.evaluate.promote import promote


class Model(NamedTuple):
    """A policy with its name and its greedy captions of the benchmark's images, scored."""

    name: str
    policy: ArtifactRef
    scores: StageOutput
    captions: ArtifactRef


class Round(NamedTuple):
    """What a round gave."""

    candidate: Model
    guide: Guide
    decision: StageOutput
    drift: StageOutput


def improvement_round(profile: Profile, ground: Ground, champion: Model, base: Model, number: int) -> Round:
    """Sample images, roll out captions, reward sentences, train V, search, fine-tune, measure, decide."""
    run: dict[str, Any] = {"runtime": profile.runtime}
    name = f"round-{number}"

    drawn, guide = learn_guide(profile, ground, champion.policy, number, tuning_needs(profile))
    tuned = tune(profile, ground, champion.policy, guide, drawn)

    candidate = measure(profile, ground, name, tuned["policy"])
    moved = drifted(profile, ground, base, candidate)
    paired = compare(
        profile.evaluate,
        candidate.scores["scores"],
        champion.scores["scores"],
        label=f"{name} - {champion.name}",
        **run,
    )
    decision = promote(
        profile.promote,
        paired["comparisons"],
        candidate=name,
        champion=champion.name,
        beyond=cast(list[str], moved.facts["beyond"]),
        label=name,
        **run,
    )
    return Round(candidate, guide, decision, moved)


def drifted(profile: Profile, ground: Ground, base: Model, candidate: Model) -> StageOutput:
    """How far the candidate has moved from the base in what it was not trained for."""
    run: dict[str, Any] = {"runtime": profile.runtime}
    general = None
    if profile.drift.questions:
        before, after = (general_answers(profile, ground, one) for one in (base, candidate))
        paired = f"{candidate.name} - base general"
        general = compare(profile.evaluate, after["scores"], before["scores"], label=paired, **run)["comparisons"]
    return drift(
        profile.drift, candidate.captions, base.captions,
        subject=candidate.name, general=general, bootstrap=profile.evaluate.bootstrap,
        confidence=profile.evaluate.confidence, label=candidate.name, **run,
    )  # fmt: skip


def general_answers(profile: Profile, ground: Ground, model: Model) -> StageOutput:
    """Short answers to questions about the benchmark's images, scored."""
    run: dict[str, Any] = {"runtime": profile.runtime}
    label = f"{model.name} general"
    asked = ask(
        profile.questions, open_source(profile.data.benchmark), ground.bench["images"],
        benchmark=True, file_digest=questions_digest(profile.questions, benchmark=True), seed=profile.seed,
        label="general", **run,
    )  # fmt: skip
    few = take(asked["samples"], count=profile.drift.questions, seed=profile.seed, label="general", **run)["part"]
    said = greedy_answers(profile, model.policy, ground.bench["images"], few, label)
    return evaluate_answers(
        profile.evaluate, said["captions"], few, asked["answers"],
        subject=model.name, decoding="greedy", label=label, **run,
    )  # fmt: skip


def measure(profile: Profile, ground: Ground, name: str, policy: ArtifactRef) -> Model:
    """A policy's greedy captions of the benchmark's images, scored."""
    captions = greedy_answers(profile, policy, ground.bench["images"], ground.bench["samples"], f"{name} greedy")
    return Model(name, policy, scores_of(profile, ground, captions, name, "greedy"), captions["captions"])


def scores_of(profile: Profile, ground: Ground, captions: StageOutput, subject: str, decoding: str) -> StageOutput:
    """CHAIR of captions of the benchmark's images."""
    return evaluate(
        profile.evaluate,
        captions["captions"],
        ground.bench["samples"],
        ground.truth["annotations"],
        subject=subject,
        decoding=decoding,
        runtime=profile.runtime,
        label=f"{subject} {decoding}",
    )
