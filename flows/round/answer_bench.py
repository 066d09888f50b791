"""Questions to learn from and to measure on, and how well a policy answers them. Order only."""

from __future__ import annotations

from dataclasses import dataclass

from flows.profiles.loading import Profile
from flows.round.guide import RoundGuide, guide_for
from flows.round.measure import Model, compared, greedy_answers
from flows.round.prepare import LoopContext
from storage.artifacts import Table
from storage.schema import Caption
from tasks.data.question_files import questions_digest
from tasks.data.questions import PlainAnswersResult, QuestionsResult, ask, plainly
from tasks.data.sample import Draw, OpenSource, SampleResult, sample
from tasks.evaluate.answers import evaluate_answers
from tasks.evaluate.evaluate import CompareResult, EvaluateResult
from tasks.models.handles import PolicyHandle
from tasks.search.search import search


@dataclass(frozen=True)
class Questions:
    """The same questions about the same images twice, each with its answers."""

    drawn: SampleResult  # the images
    plain: QuestionsResult  # alone
    staged: QuestionsResult  # with the instruction to answer in stages


@dataclass(frozen=True)
class AnswerContext(LoopContext):
    """Of a loop that improves answers: the benchmark's questions."""

    questions: Questions


def questions_about(profile: Profile, source: OpenSource, draw: Draw, base: PolicyHandle, label: str = "") -> Questions:
    """Images that the base policy takes, drawn from a source, and questions about them, plain and with the instruction."""
    drawn = sample.with_label(label)(profile.sample, source, draw, base)
    digest = questions_digest(profile.questions, benchmark=draw.benchmark)
    plain, staged = (
        ask.with_label(name)(
            profile.questions,
            source,
            drawn.images,
            benchmark=draw.benchmark,
            instruction=instruction,
            file_digest=digest,
            seed=profile.seed,
        )
        for name, instruction in ((label, ""), (f"{label} staged".strip(), profile.staged.instruction))
    )
    return Questions(drawn, plain, staged)


def plain_answers(
    profile: Profile, captions: list[Table[Caption]], questions: Questions, label: str = ""
) -> PlainAnswersResult:
    """Answers to the instructed questions as answers to the plain ones."""
    staged, plain = questions.staged.samples, questions.plain.samples
    return plainly.with_label(label)(captions, staged, plain, instruction=profile.staged.instruction)


def measure_answers(context: AnswerContext, name: str, policy: PolicyHandle) -> Model:
    """A policy's greedy answers to the benchmark's questions, asked plainly, scored."""
    samples = context.questions.plain.samples
    captions = greedy_answers(context, policy, context.benchmark.images, samples, f"{name} greedy").captions
    return Model(name, policy, accuracy_of(context, captions, name, "greedy"), captions)


def measure_staged(context: AnswerContext, base: Model) -> CompareResult:
    """The base's greedy answers to the same questions with the instruction, against those without it."""
    samples, label = context.questions.staged.samples, f"{base.name} staged"
    answers = greedy_answers(context, base.policy, context.benchmark.images, samples, label)
    return compare_with_greedy(context, base, answers.captions, "staged")


def measure_search(context: AnswerContext, model: Model, guide: RoundGuide | None) -> CompareResult:
    """What the profile's search adds to a model: its answers in stages, searched, against its greedy ones.

    A model that was trained answers in stages without being asked to; the base is asked to.
    """
    profile, questions = context.profile, context.questions
    samples = (questions.staged if model.name == "base" else questions.plain).samples
    strategy = profile.search.strategy
    guided_by = guide_for(context, guide, profile.search)
    searched = search.with_label(f"{model.name} {strategy}").over_shards(
        profile.search, model.policy, context.benchmark.images, samples, guided_by, seed=profile.seed
    )
    return compare_with_greedy(context, model, searched.captions, strategy)


def compare_with_greedy(context: AnswerContext, model: Model, captions: Table[Caption], decoding: str) -> CompareResult:
    """Other answers of a model to the benchmark's questions, scored and set against its greedy ones."""
    name = f"{model.name} {decoding}"
    if model.name == "base":
        captions = plain_answers(context.profile, [captions], context.questions, name).plain
    scores = accuracy_of(context, captions, model.name, decoding)
    return compared(context, scores.scores, model.scores.scores, f"{name} - greedy")


def accuracy_of(context: AnswerContext, captions: Table[Caption], subject: str, decoding: str) -> EvaluateResult:
    """Accuracy of answers to the plain questions."""
    plain = context.questions.plain
    return evaluate_answers.with_label(f"{subject} {decoding}")(
        context.profile.evaluate, captions, plain.samples, plain.answers, subject=subject, decoding=decoding
    )
