"""Self-training: rounds of improvement until they stop improving. The whole loop, and nothing but order.

visloop run demo          the same as          prefect run self-training --profile demo
"""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

from prefect import flow, get_run_logger
from prefect.task_runners import ThreadPoolTaskRunner

from flows.profiles.loading import Profile, load_profile
from flows.recording import recorded_run
from flows.round.answer_bench import AnswerGround
from flows.round.answers import AnswerRound, answer_round, prepare_answers
from flows.round.guide import Ground, lay_ground, search_captions
from flows.round.improvement import Model, Round, improvement_round, measure, scores_of
from flows.round.rewards import score_answers
from storage import runs
from storage.artifacts import StageOutput
from tasks.data.sample import take
from tasks.evaluate.evaluate import compare, health
from tasks.report.run_report import round_summary_markdown, write_report
from tasks.rollout.rollout import rollout
from tasks.stage.plan import current_plan
from tasks.stage.progress import create_markdown
from tasks.stage.stage import StageInputError, in_round

log = logging.getLogger(__name__)


class RunSummary(NamedTuple):
    """How a run ended."""

    run_id: str
    rounds: int
    champion: str
    message: str


class UnhealthyGround(StageInputError):
    """The base model or the scorer is not what a loop can stand on."""


@flow(
    name="self-training",
    flow_run_name="{profile.name}-seed-{profile.seed}",
    # Shards follow one another: each keeps all cores, or the GPU, busy by itself.
    task_runner=ThreadPoolTaskRunner(max_workers=1),  # type: ignore[arg-type]
)
def self_training(profile: Profile = load_profile("demo")) -> RunSummary:  # noqa: B008  frozen
    """Make a vision-language model better with nothing but images, round by round.

    Args:
        profile: everything a run depends on: models, images, and how each stage works.
    """
    with recorded_run(profile.name, profile) as run_id:
        get_run_logger().info("run %s", run_id)
        summary = improve(profile, run_id)
    runs.finish_run(run_id, "completed", rounds=summary.rounds, champion=summary.champion, message=summary.message)
    write_report(run_id)
    return summary


def improve(profile: Profile, run_id: str) -> RunSummary:
    """Rounds from the base model on; a round that does not win leaves the champion as it is."""
    ground, base = prepare(profile)
    champion, losses, message = base, 0, "all rounds done"
    for number in range(1, profile.rounds + 1):
        with in_round(number):
            done = one_round(profile, ground, champion, base, number)
        if done.decision.facts["promoted"]:
            champion, losses = done.candidate, 0
        else:
            losses += 1
        if current_plan() is None:
            show_round(run_id, number)
        beyond = done.drift.facts["beyond"] if isinstance(done, Round) else None
        if isinstance(beyond, list) and beyond and profile.drift.action == "stop":
            message = f"stopped after round {number}, for it drifted: {'; '.join(map(str, beyond))}"
            break
        if losses >= profile.patience:
            message = f"stopped after round {number}: {done.decision.facts['reason']}"
            break
    return RunSummary(run_id, number, champion.name, message)


def one_round(
    profile: Profile, ground: Ground | AnswerGround, champion: Model, base: Model, number: int
) -> Round | AnswerRound:
    """A round of the profile's task."""
    if isinstance(ground, AnswerGround):
        return answer_round(profile, ground, champion, base, number)
    done = improvement_round(profile, ground, champion, base, number)
    compare_with_base(profile, ground, base, done, number)
    return done


def prepare(profile: Profile) -> tuple[Ground | AnswerGround, Model]:
    """What all rounds share, and the base model measured; checks that the loop's ground is firm."""
    if profile.task == "answers":
        return prepare_answers(profile)
    ground, base = lay_ground(profile)
    model = measure(profile, ground, "base", base)
    check_health(profile, ground, model)
    return ground, model


def check_health(profile: Profile, ground: Ground, base: Model) -> StageOutput:
    """Roll out some of the benchmark's images and see whether the scorer can tell; the verdict."""
    run: dict[str, Any] = {"runtime": profile.runtime, "label": "health"}
    images = ground.bench["images"]
    few = take(ground.bench["samples"], count=profile.health.images, seed=profile.seed, **run)["part"]
    answers = rollout.over_shards(
        profile.runtime.shards, profile.rollout, profile.policy, base.policy, images, few,
        seed=profile.seed, **run,
    )  # fmt: skip
    scored = score_answers(profile, ground, images, few, answers["rollouts"], label="health").scored
    verdict = health(
        profile.health, base.scores["metrics"], scored, few, ground.truth["annotations"],
        subject="base", **run,
    )  # fmt: skip
    problems = verdict.facts["problems"]
    if isinstance(problems, list) and problems:
        text = "the loop's ground is not firm: " + "; ".join(map(str, problems))
        if profile.health.action == "stop":
            raise UnhealthyGround(f"{text}. Set health's bounds to what this model is, or health.action=warn to go on")
        log.warning(text)
    return verdict


def compare_with_base(profile: Profile, ground: Ground, base: Model, done: Round, number: int) -> None:
    """Beside the gate's comparison: this round against the base, and, once, what search does for the untrained base."""
    run: dict[str, Any] = {"runtime": profile.runtime}
    if number > 1:
        paired = f"round-{number} - base"
        compare(profile.evaluate, done.candidate.scores["scores"], base.scores["scores"], label=paired, **run)
    searches = profile.finetune.method == "sft" and profile.search.strategy != "greedy"
    if number == 1 and "search" in profile.evaluate.decodings and searches:
        strategy = profile.search.strategy
        captions = search_captions(
            profile, ground, base.policy, done.guide, profile.search, ground.bench["images"], ground.bench["samples"],
            label=f"base {strategy}",
        )  # fmt: skip
        searched = scores_of(profile, ground, captions, "base", strategy)
        compare(profile.evaluate, searched["scores"], base.scores["scores"], label=f"base {strategy} - greedy", **run)


def show_round(run_id: str, number: int) -> None:
    """The round's table and plot as a Prefect artifact."""
    create_markdown(f"round-{number}", round_summary_markdown(run_id, number), f"round {number}")


def plan(profile: Profile) -> None:
    """Go through a run's stages inside `tasks.stage.stage.planning()`: nothing is computed."""
    improve(profile, run_id="")
