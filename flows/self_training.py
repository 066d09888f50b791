"""Self-training: rounds of improvement until they stop improving. The whole loop, and nothing but order.

visloop run demo          the same as          prefect run self-training --profile demo
"""

from __future__ import annotations

from typing import NamedTuple

from prefect import flow, get_run_logger
from prefect.task_runners import ThreadPoolTaskRunner

from flows.profiles.loading import Profile, load_profile
from flows.recording import recorded_run
from flows.round.answer_bench import AnswerContext
from flows.round.answers import AnswerRound, answer_round, prepare_answers
from flows.round.improvement import Round, improvement_round, prepare
from flows.round.measure import Model
from flows.round.prepare import CaptionContext
from storage import runs
from tasks.report.run_report import round_summary_markdown, write_report
from tasks.stage.calls import in_round
from tasks.stage.plan import current_plan
from tasks.stage.progress import create_markdown
from tasks.stage.runtime import use_runtime


class RunSummary(NamedTuple):
    """How a run ended."""

    run_id: str
    rounds: int
    champion: str
    message: str


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
    with use_runtime(profile.runtime):
        context, base = prepare_answers(profile) if profile.task == "answers" else prepare(profile)
        return rounds_of(context, base, run_id)


def rounds_of(context: CaptionContext | AnswerContext, base: Model, run_id: str) -> RunSummary:
    """Round after round, until all are done, too many lost, or one drifted too far."""
    profile = context.profile
    champion, losses, message = base, 0, "all rounds done"
    for number in range(1, profile.rounds + 1):
        with in_round(number):
            done = one_round(context, champion, base, number)
        if done.decision.promoted:
            champion, losses = done.candidate, 0
        else:
            losses += 1
        if current_plan() is None:
            show_round(run_id, number)
        beyond = done.drift.beyond if isinstance(done, Round) else []
        if isinstance(beyond, list) and beyond and profile.drift.action == "stop":  # not known in a plan
            message = f"stopped after round {number}: drift limit exceeded: {'; '.join(beyond)}"
            break
        if losses >= profile.patience:
            message = f"stopped after round {number}: {done.decision.reason}"
            break
    return RunSummary(run_id, number, champion.name, message)


def one_round(
    context: CaptionContext | AnswerContext, champion: Model, base: Model, number: int
) -> Round | AnswerRound:
    """A round of the profile's task."""
    if isinstance(context, AnswerContext):
        return answer_round(context, champion, base, number)
    return improvement_round(context, champion, base, number)


def show_round(run_id: str, number: int) -> None:
    """The round's table and plot as a Prefect artifact."""
    create_markdown(f"round-{number}", round_summary_markdown(run_id, number), f"round {number}")


def plan(profile: Profile) -> None:
    """Go through a run's stages inside `tasks.stage.plan.planning()`: nothing is computed."""
    improve(profile, run_id="")
