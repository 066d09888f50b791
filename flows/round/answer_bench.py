"""Questions to learn from and to measure on, and how well a policy answers them. Order only: every line is a stage."""

from __future__ import annotations

from typing import Any, NamedTuple

from flows.profiles.loading import Profile
from flows.round.guide import Ground, Guide, search_guides
from flows.round.improvement import Model
from flows.round.train import greedy_answers
from storage.artifacts import ArtifactRef, StageOutput
from tasks.data.questions import ask, plainly, questions_digest
from tasks.data.sample import Draw, OpenSource, sample
from tasks.evaluate.answers import evaluate_answers
from tasks.evaluate.evaluate import compare
from tasks.search.search import search


class Questions(NamedTuple):
    """The same questions about the same images twice, each with its answers."""

    drawn: StageOutput  # the images
    plain: StageOutput  # alone
    told: StageOutput  # with the instruction to answer in stages


class AnswerGround(NamedTuple):
    """What all rounds share. Of the loop's own ground, bench is the images, truth the plain questions with their answers."""

    shared: Ground
    bench: Questions


def questions_about(profile: Profile, source: OpenSource, draw: Draw, label: str = "") -> Questions:
    """Images drawn from a source, and questions about them, plain and told."""
    run: dict[str, Any] = {"runtime": profile.runtime}
    drawn = sample(profile.sample, source, draw, label=label, **run)
    images = drawn["images"]
    about: dict[str, Any] = {
        "benchmark": draw.benchmark,
        "file_digest": questions_digest(profile.questions, benchmark=draw.benchmark),
        "seed": profile.seed,
        **run,
    }
    plain = ask(profile.questions, source, images, label=label, **about)
    told = ask(
        profile.questions,
        source,
        images,
        instruction=profile.staged.instruction,
        label=f"{label} staged".strip(),
        **about,
    )
    return Questions(drawn, plain, told)


def plain_answers(profile: Profile, captions: list[ArtifactRef], asked: Questions, label: str = "") -> StageOutput:
    """Answers to the told questions as answers to the plain ones."""
    told, plain = asked.told["samples"], asked.plain["samples"]
    instruction = profile.staged.instruction
    return plainly(captions, told, plain, instruction=instruction, runtime=profile.runtime, label=label)


def measure_answers(profile: Profile, ground: AnswerGround, name: str, policy: ArtifactRef) -> Model:
    """A policy's greedy answers to the benchmark's questions, asked plainly, scored."""
    bench = ground.bench
    said = greedy_answers(profile, policy, bench.drawn["images"], bench.plain["samples"], f"{name} greedy")
    scores = scores_of_answers(profile, ground, said["captions"], name, "greedy")
    return Model(name, policy, scores, said["captions"])


def measure_told(profile: Profile, ground: AnswerGround, base: Model) -> StageOutput:
    """The base's greedy answers to the same questions with the instruction, against those without it."""
    bench = ground.bench
    said = greedy_answers(profile, base.policy, bench.drawn["images"], bench.told["samples"], f"{base.name} staged")
    return compare_with_greedy(profile, ground, base, said["captions"], "staged")


def measure_search(profile: Profile, ground: AnswerGround, model: Model, guide: Guide | None) -> StageOutput:
    """What the profile's search adds to a model: its answers in stages, searched, against its greedy ones.

    A model that was trained answers in stages unasked; the base is told to.
    """
    questions = ground.bench.told if model.name == "base" else ground.bench.plain
    strategy = profile.search.strategy
    said = search.over_shards(
        profile.runtime.shards,
        profile.search,
        profile.policy,
        model.policy,
        ground.bench.drawn["images"],
        questions["samples"],
        seed=profile.seed,
        runtime=profile.runtime,
        label=f"{model.name} {strategy}",
        **search_guides(ground.shared, guide, profile.search),
    )
    return compare_with_greedy(profile, ground, model, said["captions"], strategy)


def compare_with_greedy(
    profile: Profile, ground: AnswerGround, model: Model, captions: ArtifactRef, decoding: str
) -> StageOutput:
    """Other answers of a model to the benchmark's questions, told or plain, scored and set against its greedy ones."""
    name = f"{model.name} {decoding}"
    if model.name == "base":
        captions = plain_answers(profile, [captions], ground.bench, label=name)["plain"]
    scores = scores_of_answers(profile, ground, captions, model.name, decoding)
    return compare_answers(profile, scores, model.scores, f"{name} - greedy")


def scores_of_answers(
    profile: Profile, ground: AnswerGround, captions: ArtifactRef, subject: str, decoding: str
) -> StageOutput:
    """Accuracy of answers to the plain questions."""
    plain = ground.bench.plain
    return evaluate_answers(
        profile.evaluate,
        captions,
        plain["samples"],
        plain["answers"],
        subject=subject,
        decoding=decoding,
        runtime=profile.runtime,
        label=f"{subject} {decoding}",
    )


def compare_answers(profile: Profile, a: StageOutput, b: StageOutput, label: str) -> StageOutput:
    """Paired differences of two subjects."""
    return compare(profile.evaluate, a["scores"], b["scores"], runtime=profile.runtime, label=label)
