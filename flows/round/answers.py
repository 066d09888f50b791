"""One round of learning to answer in stages (LLaVA-CoT), and what comes before the first. Order only: every line is a stage.

Questions take the place of prompts: alone, as they are learned and measured, and with an instruction, as the policy is asked
for stages. The rest is the loop's own: search, fine-tune, measure, decide.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from flows.profiles.loading import Profile, locate
from flows.round.answer_bench import (
    AnswerGround,
    Questions,
    compare_answers,
    measure_answers,
    measure_search,
    measure_told,
    plain_answers,
    questions_about,
)
from flows.round.guide import Ground, Guide, search_guides
from flows.round.improvement import Model
from flows.round.rewards import score_answers
from storage.artifacts import ArtifactRef, StageOutput
from storage.checkpoints import import_checkpoint
from tasks.configs.data import FolderSource
from tasks.configs.staged import EndpointTeacher
from tasks.configs.train import SftConfig, switch_method
from tasks.data.sample import Draw, open_source
from tasks.evaluate.promote import promote
from tasks.models.scorers import import_scorer
from tasks.reward.label import label
from tasks.rollout.rollout import rollout
from tasks.search.search import search, search_needs
from tasks.stage.stage import StageInputError
from tasks.staged.teach import attempt_name, attempt_seed, judge, reasonings, teach
from tasks.staged.verify import verify, verify_by_agreement, verify_by_judge
from tasks.train.finetune import finetune


class AnswerRound(NamedTuple):
    """What a round gave."""

    candidate: Model
    decision: StageOutput


class Own(NamedTuple):
    """A policy's own staged answers to a round's questions, and what they tell a search; None where nobody needs them."""

    rollouts: StageOutput | None
    guide: Guide | None


def prepare_answers(profile: Profile) -> tuple[AnswerGround, Model]:
    """The questions to measure on, and the base: asked plainly, as rounds are compared, and told to answer in stages."""
    check_answers(profile)
    source = open_source(profile.data.benchmark)
    draw = Draw(images=profile.evaluate.images, seed=profile.seed, benchmark=True)
    bench = questions_about(profile, source, draw, label="benchmark")
    base = import_checkpoint("policy", locate(profile.policy.checkpoint))
    scorer = import_scorer(locate(profile.scorer.checkpoint))
    shared = Ground(base, open_source(profile.data.train), scorer, bench.drawn, bench.plain)
    ground = AnswerGround(shared, bench)
    model = measure_answers(profile, ground, "base", base)
    if profile.staged.instruction:
        measure_told(profile, ground, model)
    return ground, model


def answer_round(profile: Profile, ground: AnswerGround, champion: Model, base: Model, number: int) -> AnswerRound:
    """Ask about new images, have answers in stages written and verified, learn them under the bare questions, measure."""
    run: dict[str, Any] = {"runtime": profile.runtime}
    seeded: dict[str, Any] = {"seed": profile.seed, **run}
    name = f"round-{number}"

    draw = Draw(images=profile.sample.images, seed=profile.seed, round_index=number - 1)
    asked = questions_about(profile, ground.shared.train, draw)
    own = own_answers(profile, ground, champion.policy, asked)
    accepted = verified_answers(profile, ground, champion.policy, asked, own)
    lesson = plain_answers(profile, accepted, asked)["plain"]
    tuned = finetune(
        switch_method(profile.finetune, SftConfig),
        profile.policy,
        champion.policy,
        asked.drawn["images"],
        asked.plain["samples"],
        lesson,
        **seeded,
    )

    candidate = measure_answers(profile, ground, name, tuned["policy"])
    paired = compare_answers(profile, candidate.scores, champion.scores, f"{name} - {champion.name}")
    decision = promote(
        profile.promote, paired["comparisons"], candidate=name, champion=champion.name, label=name, **run
    )
    if champion.name != base.name:
        compare_answers(profile, candidate.scores, base.scores, f"{name} - {base.name}")
    if searches_champion(profile, champion, number):
        measure_search(profile, ground, champion, own.guide)
    return AnswerRound(candidate, decision)


def searches_champion(profile: Profile, champion: Model, number: int) -> bool:
    """Whether a round measures the profile's search on its champion: once for each, when its own answers are there."""
    wanted = "search" in profile.evaluate.decodings and profile.search.strategy != "greedy"
    new = champion.name == ("base" if number == 1 else f"round-{number - 1}")
    return wanted and new and profile.staged.teacher.kind == "self"


def own_answers(profile: Profile, ground: AnswerGround, policy: ArtifactRef, asked: Questions) -> Own:
    """The policy's own staged answers, where the gate votes by them or the search calibrates on their reasonings."""
    run: dict[str, Any] = {"runtime": profile.runtime}
    calibrates = profile.staged.teacher.kind == "self" and bool(search_needs(profile.search) & {"margin", "answers"})
    if not calibrates and profile.staged.verify != "agreement":
        return Own(None, None)
    shards, samples = profile.runtime.shards, asked.told["samples"]
    said = rollout.over_shards(
        shards, profile.rollout, profile.policy, policy, asked.drawn["images"], samples, seed=profile.seed, **run
    )
    if not calibrates:
        return Own(said, None)
    reasoned = reasonings(said["rollouts"], **run)
    scored = score_answers(profile, ground.shared, asked.drawn["images"], samples, reasoned["rollouts"])
    rewards = label(profile.label, scored.scored, **run)
    return Own(said, Guide(scored.scorer, said["rollouts"], rewards, None, policy))


def verified_answers(
    profile: Profile, ground: AnswerGround, policy: ArtifactRef, asked: Questions, own: Own
) -> list[ArtifactRef]:
    """The accepted answers of every attempt; what was refused in one is tried again in the next."""
    samples, accepted = asked.told["samples"], []
    for attempt in range(profile.staged.attempts):
        written = written_answers(profile, ground, policy, asked, samples, own, attempt)
        verdict = gate(profile, written["captions"], samples, asked, own, attempt)
        accepted.append(verdict["accepted"])
        samples = verdict["refused"]
        if samples.rows == 0:
            break
    return accepted


def written_answers(
    profile: Profile,
    ground: AnswerGround,
    policy: ArtifactRef,
    asked: Questions,
    samples: ArtifactRef,
    own: Own,
    attempt: int,
) -> StageOutput:
    """Staged answers to some of the questions, by the teacher or by the policy's search."""
    seed, name = attempt_seed(profile.seed, attempt), f"attempt {attempt + 1}"
    teacher = profile.staged.teacher
    if isinstance(teacher, EndpointTeacher):
        return teach(
            teacher,
            asked.drawn["images"],
            samples,
            asked.told["answers"],
            instruction=profile.staged.instruction,
            attempt=attempt,
            seed=profile.seed,
            runtime=profile.runtime,
            label=name,
        )
    return search.over_shards(
        profile.runtime.shards,
        profile.search,
        profile.policy,
        policy,
        asked.drawn["images"],
        samples,
        seed=seed,
        name=attempt_name(profile.search.strategy, attempt),
        runtime=profile.runtime,
        label=name,
        **search_guides(ground.shared, own.guide, profile.search),
    )


def gate(
    profile: Profile, captions: ArtifactRef, samples: ArtifactRef, asked: Questions, own: Own, attempt: int
) -> StageOutput:
    """The profile's verification of an attempt's answers."""
    staged, answers = profile.staged, asked.told["answers"]
    run: dict[str, Any] = {"attempt": attempt, "runtime": profile.runtime, "label": f"attempt {attempt + 1}"}
    if own.rollouts is not None and staged.verify == "agreement":
        least = staged.min_agreement
        return verify_by_agreement(captions, samples, own.rollouts["rollouts"], min_agreement=least, **run)
    if isinstance(staged.teacher, EndpointTeacher) and staged.verify == "judge":
        said: dict[str, Any] = {"instruction": staged.instruction, "seed": profile.seed, **run}
        judged = judge(staged.teacher, captions, samples, answers, **said)
        return verify_by_judge(captions, samples, judged["judged"], **run)
    return verify(captions, samples, answers, **run)


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
