"""Tags: training on the same verified answers in tagged stages, without tags, in another order, or as conclusions alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flows.experiments.contract import Experiment
from flows.experiments.trained import BASE, DEMO, on_drawn_scenes
from flows.profiles.loading import Profile, ProfileError, load_profile
from flows.round.answer_bench import AnswerContext, accuracy_of, plain_answers, questions_about
from flows.round.answers import own_answers, prepare_answers, verified_answers
from flows.round.measure import Model, compared, greedy_answers
from flows.round.prepare import round_draw
from storage.artifacts import Table
from storage.schema import Caption
from tasks.analysis.answer_shares import concluding
from tasks.analysis.findings import Evidence, Findings, each, figure, verdicts
from tasks.analysis.rewrite import rewrite
from tasks.configs.train import SftConfig, switch_method
from tasks.models.handles import PolicyHandle
from tasks.report.experiment_figures import Plot
from tasks.train.finetune import finetune

TAGGED, UNTAGGED, SHUFFLED, SHORT = "tagged", "untagged", "shuffled", "conclusion alone"
FORMS = {UNTAGGED: "untagged", SHUFFLED: "shuffled", SHORT: "conclusion"}
CONCLUDES = 0.95  # a smaller share of answers with a conclusion is reported
SHARED = ("seed", "data", "sample", "evaluate", "runtime")  # taken from the given profile if demo-cot is run


def run(profile: Profile, quick: bool) -> list[Evidence]:
    """The same answers in four forms; the base is trained on each under the bare questions and measured as in a round."""
    profile = answers_of(profile)
    context, base = prepare_answers(profile)
    questions = questions_about(profile, context.source, round_draw(profile, 1), context.base)
    accepted = verified_answers(context, own_answers(context, base.policy, questions))
    training_answers = plain_answers(profile, accepted, questions).plain
    images, samples = questions.drawn.images, questions.plain.samples
    models: list[Model] = []
    for name in (TAGGED, UNTAGGED, SHUFFLED, SHORT)[: 2 if quick else 4]:
        trained = finetune.with_label(name)(
            switch_method(profile.finetune, SftConfig),
            base.policy,
            images,
            samples,
            in_form(profile, training_answers, name),
            seed=profile.seed,
        )
        models.append(measured(context, name, context.handle(trained)))
    facts = {"examples": training_answers.rows}
    results = [evidence_of(context, base, [])]
    return results + [
        evidence_of(context, model, [base, models[0]] if model is not models[0] else [base], **facts)
        for model in models
    ]


def answers_of(profile: Profile) -> Profile:
    """The profile if it answers questions; for one that describes the demo's scenes, `demo-cot` with its images and seed.

    Raises:
        ProfileError: the profile describes other images than the demo's.
    """
    if profile.task == "answers":
        return profile
    if not on_drawn_scenes(profile):
        raise ProfileError(
            f"profile {profile.name} describes images; tags needs one with task: answers, whose policy writes tagged "
            f"stages, as {DEMO}: --profile PROFILE"
        )
    return load_profile(DEMO).model_copy(update={name: getattr(profile, name) for name in SHARED})


def in_form(profile: Profile, training_answers: Table[Caption], name: str) -> Table[Caption]:
    """The training answers in a form."""
    if name == TAGGED:
        return training_answers
    form: Any = FORMS[name]
    return rewrite.with_label(name)(training_answers, form=form, seed=profile.seed).captions


def measured(context: AnswerContext, name: str, policy: PolicyHandle) -> Model:
    """Greedy answers to the benchmark's bare questions, scored; in an answer without tags the last sentence counts."""
    samples = context.questions.plain.samples
    captions = greedy_answers(context, policy, context.benchmark.images, samples, f"{name} greedy").captions
    if name == UNTAGGED:
        concluded = rewrite.with_label(f"{name}, last")
        captions = concluded(captions, form="concluded", seed=context.profile.seed).captions
    return Model(name, policy, accuracy_of(context, captions, name, "greedy"), captions)


def evidence_of(context: AnswerContext, model: Model, against: Sequence[Model], **facts: Any) -> Evidence:
    """Accuracy by kind of question, the share of answers with a conclusion, and paired differences."""
    pairs = {
        other.name: compared(
            context, model.scores.scores, other.scores.scores, f"{model.name} - {other.name}"
        ).comparisons
        for other in against
    }
    stated = concluding.with_label(model.name)(context.profile.evaluate, model.scores.scores, subject=model.name)
    return Evidence(model.name, None, (model.scores.metrics, stated.metrics), pairs, facts=facts)


def answer(findings: Findings) -> str:
    """Whether stages help at all, and whether their tags and order matter."""
    rest = [arm for arm in findings.arms if arm not in (BASE, TAGGED)]
    silent = [arm for arm in rest if findings.value(arm, "concluded") < CONCLUDES]
    warning = f" Not all answers conclude: {each(findings, silent, 'concluded')}." if silent else ""
    return (
        f"Learning answers in tagged stages brings accuracy from {figure(findings, BASE, 'accuracy')} to "
        f"{figure(findings, TAGGED, 'accuracy')}: {findings.compared(TAGGED, BASE, 'accuracy')}. Beside tagged ones, the "
        f"same answers in other forms are {verdicts(findings, rest, TAGGED, 'accuracy')}.{warning}"
    )


EXPERIMENT = Experiment(
    run=run,
    answer=answer,
    columns=("accuracy", "accuracy_what", "accuracy_how_many", "accuracy_where", "concluded", "staged", "examples"),
    plot=Plot("arms", ("accuracy", "accuracy_what", "accuracy_how_many", "accuracy_where")),
    method="Training on the base's own staged answers, verified as the profile says, under the bare questions: as they "
    "are; with the tags removed; with the stages in another order, tags and all; the conclusion alone. What is "
    "judged is the conclusion: the stage of that name, the last sentence of an answer learned without tags, "
    "else the whole answer. A profile that describes the demo's scenes is run as demo-cot.",
)
