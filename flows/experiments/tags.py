"""Tags: the same verified answers learned in tagged stages, without tags, in another order, or as conclusions alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flows.experiments.contract import Experiment
from flows.experiments.trained import BASE, DEMO, on_drawn_scenes
from flows.profiles.loading import Profile, ProfileError, load_profile
from flows.round.answer_bench import AnswerGround, compare_answers, plain_answers, questions_about, scores_of_answers
from flows.round.answers import own_answers, prepare_answers, verified_answers
from flows.round.improvement import Model
from flows.round.train import greedy_answers
from storage.artifacts import ArtifactRef
from tasks.analysis.answer_shares import concluding
from tasks.analysis.findings import Evidence, Findings
from tasks.analysis.rewrite import rewrite
from tasks.data.sample import Draw
from tasks.report.experiment_figures import Plot
from tasks.train.finetune import finetune

TAGGED, UNTAGGED, SHUFFLED, SHORT = "tagged", "untagged", "shuffled", "conclusion alone"
FORMS = {UNTAGGED: "untagged", SHUFFLED: "shuffled", SHORT: "conclusion"}
CONCLUDES = 0.95  # a smaller share of answers with a conclusion is told
SHARED = ("seed", "data", "sample", "evaluate", "runtime")  # of the given profile, where another one is run


def run(profile: Profile, quick: bool) -> list[Evidence]:
    """One lesson in four forms, each learned by the base under the bare questions, each measured as rounds are."""
    profile = answers_of(profile)
    ground, base = prepare_answers(profile)
    draw = Draw(images=profile.sample.images, seed=profile.seed, round_index=0)
    asked = questions_about(profile, ground.shared.train, draw)
    own = own_answers(profile, ground, base.policy, asked)
    accepted = verified_answers(profile, ground, base.policy, asked, own)
    lesson = plain_answers(profile, accepted, asked)["plain"]
    images, samples = asked.drawn["images"], asked.plain["samples"]
    models: list[Model] = []
    for name in (TAGGED, UNTAGGED, SHUFFLED, SHORT)[: 2 if quick else 4]:
        tuned = finetune(
            profile.finetune, profile.policy, base.policy, images, samples, told_as(profile, lesson, name),
            seed=profile.seed, runtime=profile.runtime, label=name,
        )  # fmt: skip
        models.append(measured(profile, ground, name, tuned["policy"]))
    facts = {"examples": lesson.rows}
    found = [told(profile, base, [])]
    return found + [
        told(profile, one, [base, models[0]] if one is not models[0] else [base], **facts) for one in models
    ]


def answers_of(profile: Profile) -> Profile:
    """The profile, or for one that describes images the demo's that answers questions, on its images and seed.

    Raises:
        ProfileError: a profile that describes other images than the demo's.
    """
    if profile.task == "answers":
        return profile
    if not on_drawn_scenes(profile):
        raise ProfileError(
            f"profile {profile.name} describes images; tags needs one with task: answers, whose policy writes tagged "
            f"stages, as {DEMO}: --profile PROFILE"
        )
    return load_profile(DEMO).model_copy(update={name: getattr(profile, name) for name in SHARED})


def told_as(profile: Profile, lesson: ArtifactRef, name: str) -> ArtifactRef:
    """The lesson in a form."""
    if name == TAGGED:
        return lesson
    form: Any = FORMS[name]
    return rewrite(lesson, form=form, seed=profile.seed, label=name, runtime=profile.runtime)["captions"]


def measured(profile: Profile, ground: AnswerGround, name: str, policy: ArtifactRef) -> Model:
    """Greedy answers to the benchmark's bare questions, scored; of an answer without tags the last sentence counts."""
    bench = ground.bench
    said = greedy_answers(profile, policy, bench.drawn["images"], bench.plain["samples"], f"{name} greedy")["captions"]
    if name == UNTAGGED:
        said = rewrite(said, form="concluded", seed=profile.seed, label=f"{name}, last", runtime=profile.runtime)[
            "captions"
        ]
    return Model(name, policy, scores_of_answers(profile, ground, said, name, "greedy"), said)


def told(profile: Profile, model: Model, against: Sequence[Model], **facts: Any) -> Evidence:
    """Accuracy by kind of question and how many answers conclude, with paired differences."""
    pairs = {
        other.name: compare_answers(profile, model.scores, other.scores, f"{model.name} - {other.name}")["comparisons"]
        for other in against
    }
    stated = concluding(
        profile.evaluate, model.scores["scores"], subject=model.name, label=model.name, runtime=profile.runtime
    )
    return Evidence(model.name, None, (model.scores["metrics"], stated["metrics"]), pairs, facts=facts)


def answer(found: Findings) -> str:
    """Whether stages help at all, and whether their tags and order do."""
    first = (
        f"The base answers {found.said(BASE, 'accuracy')} of the bare questions rightly; after learning "
        f"{found.said(TAGGED, 'examples')} verified answers in tagged stages {found.said(TAGGED, 'accuracy')} "
        f"({found.compared(TAGGED, BASE, 'accuracy')}), with {found.said(TAGGED, 'staged')} of its answers in four stages."
    )
    rest = [arm for arm in found.arms if arm not in (BASE, TAGGED)]
    told = [f"{arm} {found.said(arm, 'accuracy')}, {found.compared(arm, TAGGED, 'accuracy')}" for arm in rest]
    mute = [f"{arm} ({found.said(arm, 'concluded')})" for arm in rest if found.value(arm, "concluded") < CONCLUDES]
    silent = f" Not all of these conclude at all: {', '.join(mute)}." if mute else ""
    same = [arm for arm in rest if not found.surely(arm, TAGGED, "accuracy")]
    verdict = (
        "All of them surely differ from the tagged ones."
        if not same
        else f"Not to be told apart from the tagged ones: {', '.join(same)}."
    )
    return f"{first} The same answers in other forms: {'; '.join(told)}. {verdict}{silent}"


EXPERIMENT = Experiment(
    run=run,
    answer=answer,
    columns=("accuracy", "accuracy_what", "accuracy_how_many", "accuracy_where", "concluded", "staged", "examples"),
    plot=Plot("arms", ("accuracy", "accuracy_what", "accuracy_how_many", "accuracy_where")),
    method="The base's own staged answers, verified as the profile says, learned under the bare questions: as they "
    "are; with the tags removed; with the stages in another order, tags and all; the conclusion alone. What is "
    "judged is the conclusion: the stage of that name, the last sentence of an answer learned without tags, "
    "else the whole answer. A profile that describes the demo's scenes is run as demo-cot.",
)
