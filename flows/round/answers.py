"""One round of learning to answer in stages (LLaVA-CoT), and what comes before the first. Order only.

Questions take the place of prompts: plain, as they are learned and measured, and with an instruction, as the policy answers in
stages. The rest is the loop's own: search, fine-tune, measure, decide.
"""

from __future__ import annotations

from dataclasses import dataclass

from flows.profiles.loading import Profile, locate
from flows.round.answer_bench import (
    AnswerContext,
    Questions,
    measure_answers,
    measure_search,
    measure_staged,
    plain_answers,
    questions_about,
)
from flows.round.guide import RoundGuide, guide_for
from flows.round.measure import Model, compared
from flows.round.prepare import base_policy, benchmark_draw, round_draw
from flows.round.rewards import score_answers
from storage.artifacts import Table
from storage.schema import Caption, Rollout, Sample
from tasks.configs.data import FolderSource
from tasks.configs.staged import EndpointTeacher
from tasks.configs.train import SftConfig, switch_method
from tasks.data.sample import open_source
from tasks.evaluate.promote import PromoteResult, promote
from tasks.models.handles import PolicyHandle
from tasks.models.scorers import import_scorer
from tasks.reward.shape_rewards import shape_rewards
from tasks.rollout.rollout import rollout
from tasks.search.search import search, search_needs
from tasks.stage.quarantine import StageInputError
from tasks.staged.teach import attempt_name, attempt_seed, judge, reasonings, teach
from tasks.staged.verify import VerifyResult, verify, verify_by_agreement, verify_by_judge
from tasks.train.finetune import finetune


@dataclass(frozen=True)
class AnswerRound:
    """What a round gave."""

    candidate: Model
    decision: PromoteResult


@dataclass(frozen=True)
class Attempt:
    """What an attempt to have questions answered in stages stands on."""

    number: int  # 0-based
    policy: PolicyHandle
    questions: Questions
    rollouts: Table[Rollout] | None  # the policy's own staged answers, where the gate votes or the search calibrates
    guide: RoundGuide | None

    @property
    def label(self) -> str:
        """For people: 1-based."""
        return f"attempt {self.number + 1}"


def prepare_answers(profile: Profile) -> tuple[AnswerContext, Model]:
    """The questions to measure on, and the base: asked plainly, as rounds are compared, and with the instruction."""
    check_answers(profile)
    base, benchmark = base_policy(profile), open_source(profile.data.benchmark)
    questions = questions_about(profile, benchmark, benchmark_draw(profile), base, "benchmark")
    context = AnswerContext(
        profile=profile,
        base=base,
        source=open_source(profile.data.train),
        scorer=import_scorer(locate(profile.scorer.checkpoint), profile.scorer.dtype),
        benchmark=questions.drawn,
        questions=questions,
    )
    model = measure_answers(context, "base", context.base)
    if profile.staged.instruction:
        measure_staged(context, model)
    return context, model


def answer_round(context: AnswerContext, champion: Model, base: Model, number: int) -> AnswerRound:
    """Ask about new images, have answers in stages written and verified, learn them under the bare questions, measure."""
    profile, name = context.profile, f"round-{number}"

    questions = questions_about(profile, context.source, round_draw(profile, number), context.base)
    attempt = own_answers(context, champion.policy, questions)
    accepted = verified_answers(context, attempt)
    lesson = plain_answers(profile, accepted, questions).plain
    trained = finetune(
        switch_method(profile.finetune, SftConfig),
        champion.policy,
        questions.drawn.images,
        questions.plain.samples,
        lesson,
        seed=profile.seed,
    )

    candidate = measure_answers(context, name, context.handle(trained))
    against = compared(context, candidate.scores.scores, champion.scores.scores, f"{name} - {champion.name}")
    decision = promote.with_label(name)(profile.promote, against.comparisons, candidate=name, champion=champion.name)
    if champion.name != base.name:
        compared(context, candidate.scores.scores, base.scores.scores, f"{name} - {base.name}")
    if searches_champion(profile, champion, number):
        measure_search(context, champion, attempt.guide)
    return AnswerRound(candidate, decision)


def searches_champion(profile: Profile, champion: Model, number: int) -> bool:
    """Whether a round measures the profile's search on its champion: once for each, when its own answers are there."""
    wanted = "search" in profile.evaluate.decodings and profile.search.strategy != "greedy"
    new = champion.name == ("base" if number == 1 else f"round-{number - 1}")
    return wanted and new and profile.staged.teacher.kind == "self"


def own_answers(context: AnswerContext, policy: PolicyHandle, questions: Questions) -> Attempt:
    """The policy's own staged answers, where the gate votes by them or the search calibrates on their reasonings."""
    profile = context.profile
    calibrates = profile.staged.teacher.kind == "self" and bool(search_needs(profile.search) & {"margin", "answers"})
    if not calibrates and profile.staged.verify != "agreement":
        return Attempt(0, policy, questions, None, None)
    images, samples = questions.drawn.images, questions.staged.samples
    rollouts = rollout.over_shards(profile.rollout, policy, images, samples, seed=profile.seed).rollouts
    if not calibrates:
        return Attempt(0, policy, questions, rollouts, None)
    scored = score_answers(context, images, samples, reasonings(rollouts).rollouts)
    rewards = shape_rewards(profile.label, scored.scored)
    return Attempt(0, policy, questions, rollouts, RoundGuide(policy, rollouts, scored.scorer, rewards))


def verified_answers(context: AnswerContext, first: Attempt) -> list[Table[Caption]]:
    """The accepted answers of every attempt; what was refused in one is tried again in the next."""
    samples, accepted = first.questions.staged.samples, []
    for number in range(context.profile.staged.attempts):
        attempt = Attempt(number, first.policy, first.questions, first.rollouts, first.guide)
        verdict = gate(context, attempt, samples, written_answers(context, attempt, samples))
        accepted.append(verdict.accepted)
        samples = verdict.refused
        if samples.rows == 0:
            break
    return accepted


def written_answers(context: AnswerContext, attempt: Attempt, samples: Table[Sample]) -> Table[Caption]:
    """Staged answers to some of the questions, by the teacher or by the policy's search."""
    profile, teacher, images = context.profile, context.profile.staged.teacher, attempt.questions.drawn.images
    if isinstance(teacher, EndpointTeacher):
        return teach.with_label(attempt.label)(
            teacher,
            images,
            samples,
            attempt.questions.staged.answers,
            instruction=profile.staged.instruction,
            attempt=attempt.number,
            seed=profile.seed,
        ).captions
    guide = guide_for(context, attempt.guide, profile.search, images)
    return (
        search.with_label(attempt.label)
        .over_shards(
            profile.search,
            attempt.policy,
            images,
            samples,
            guide,
            seed=attempt_seed(profile.seed, attempt.number),
            name=attempt_name(profile.search.strategy, attempt.number),
        )
        .captions
    )


def gate(context: AnswerContext, attempt: Attempt, samples: Table[Sample], captions: Table[Caption]) -> VerifyResult:
    """The profile's verification of an attempt's answers."""
    staged, answers, number = context.profile.staged, attempt.questions.staged.answers, attempt.number
    if attempt.rollouts is not None and staged.verify == "agreement":
        return verify_by_agreement.with_label(attempt.label)(
            captions, samples, attempt.rollouts, min_agreement=staged.min_agreement, attempt=number
        )
    if isinstance(staged.teacher, EndpointTeacher) and staged.verify == "judge":
        judged = judge.with_label(attempt.label)(
            staged.teacher,
            captions,
            samples,
            answers,
            instruction=staged.instruction,
            attempt=number,
            seed=context.profile.seed,
        ).judged
        return verify_by_judge.with_label(attempt.label)(captions, samples, judged, attempt=number)
    return verify.with_label(attempt.label)(captions, samples, answers, attempt=number)


def check_answers(profile: Profile) -> None:
    """Whether the profile's parts fit the task.

    Raises:
        StageInputError: they don't; names every part.
    """
    needs = search_needs(profile.search) if profile.staged.teacher.kind == "self" else frozenset[str]()
    unfit = [
        (profile.promote.metric != "accuracy", "promote.metric: answers have no CHAIR; set accuracy"),
        (profile.finetune.method != "sft", "finetune.method: staged answers are learned by sft"),
        (bool(needs & {"value", "weak"}), f"search.strategy {profile.search.strategy} needs a value model: use swires"),
        (
            profile.staged.verify == "judge" and profile.staged.teacher.kind != "endpoint",
            "staged.verify judge: the judge is the teacher's endpoint; set staged.teacher.kind=endpoint, its url and model",
        ),
        (
            isinstance(profile.data.train, FolderSource) and not profile.questions.train,
            "questions.train: a folder has no boxes to make questions from; give a file of them",
        ),
    ]
    if problems := [problem for wrong, problem in unfit if wrong]:
        raise StageInputError("this profile does not fit task: answers: " + "; ".join(problems))
