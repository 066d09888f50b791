"""A policy measured: its greedy captions of the benchmark's images, and what it has forgotten. Order only."""

from __future__ import annotations

from dataclasses import dataclass

from flows.round.prepare import CaptionContext, LoopContext
from storage.artifacts import Table
from storage.schema import Caption, Image, Sample, Score
from tasks.configs.search import SearchConfig
from tasks.data.question_files import questions_digest
from tasks.data.questions import ask
from tasks.data.sample import open_source, take
from tasks.evaluate.answers import evaluate_answers
from tasks.evaluate.drift import DriftResult, drift
from tasks.evaluate.evaluate import CompareResult, EvaluateResult, compare, evaluate
from tasks.models.handles import PolicyHandle
from tasks.search.search import CaptionsResult, search


@dataclass(frozen=True)
class Model:
    """A policy with its name and its greedy captions of the benchmark's images, scored."""

    name: str
    policy: PolicyHandle
    scores: EvaluateResult
    captions: Table[Caption]


def greedy_answers(
    context: LoopContext, policy: PolicyHandle, images: Table[Image], samples: Table[Sample], label: str
) -> CaptionsResult:
    """Greedy answers to any prompts."""
    profile = context.profile
    # Nothing else of the search counts, so changing it leaves these answers as they are.
    greedy = SearchConfig(strategy="greedy", candidates=1, max_new_tokens=profile.search.max_new_tokens)
    return search.with_label(label).over_shards(greedy, policy, images, samples, seed=profile.seed)


def measure(context: CaptionContext, name: str, policy: PolicyHandle) -> Model:
    """A policy's greedy captions of the benchmark's images, scored."""
    benchmark = context.benchmark
    captions = greedy_answers(context, policy, benchmark.images, benchmark.samples, f"{name} greedy").captions
    return Model(name, policy, chair_of(context, captions, name, "greedy"), captions)


def chair_of(context: CaptionContext, captions: Table[Caption], subject: str, decoding: str) -> EvaluateResult:
    """CHAIR of captions of the benchmark's images."""
    return evaluate.with_label(f"{subject} {decoding}")(
        context.profile.evaluate,
        captions,
        context.benchmark.samples,
        context.annotations,
        subject=subject,
        decoding=decoding,
    )


def compared(context: LoopContext, a: Table[Score], b: Table[Score], label: str) -> CompareResult:
    """Paired differences of two subjects on the same items, a - b."""
    return compare.with_label(label)(context.profile.evaluate, a, b)


def drift_of(context: CaptionContext, candidate: Model, base: Model) -> DriftResult:
    """How far the candidate has moved from the base in what it was not trained for."""
    profile, general = context.profile, None
    if profile.drift.questions:
        before, after = (general_answers(context, model) for model in (base, candidate))
        general = compared(context, after.scores, before.scores, f"{candidate.name} - base general").comparisons
    return drift.with_label(candidate.name)(
        profile.drift,
        candidate.captions,
        base.captions,
        subject=candidate.name,
        general=general,
        bootstrap=profile.evaluate.bootstrap,
        confidence=profile.evaluate.confidence,
    )


def general_answers(context: CaptionContext, model: Model) -> EvaluateResult:
    """Short answers to questions about the benchmark's images, scored."""
    profile, images = context.profile, context.benchmark.images
    questions = ask.with_label("general")(
        profile.questions,
        open_source(profile.data.benchmark),
        images,
        benchmark=True,
        file_digest=questions_digest(profile.questions, benchmark=True),
        seed=profile.seed,
    )
    part = take.with_label("general")(questions.samples, count=profile.drift.questions, seed=profile.seed).part
    label = f"{model.name} general"
    answers = greedy_answers(context, model.policy, images, part, label)
    return evaluate_answers.with_label(label)(
        profile.evaluate, answers.captions, part, questions.answers, subject=model.name, decoding="greedy"
    )
