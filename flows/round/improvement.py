"""One round of self-training, in the order of a method section. Order only: every line is a stage, or a page of stages."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from flows.profiles.loading import Profile
from flows.round.controls import Measured, measure_controls
from flows.round.guide import RoundGuide, fit_guide, search_captions
from flows.round.measure import Model, chair_of, compared, drift_of, measure
from flows.round.prepare import CaptionContext, prepare_loop, round_draw
from flows.round.rewards import score_answers
from flows.round.train import train_needs, train_policy
from tasks.configs.search import search_name
from tasks.configs.train import SftConfig
from tasks.data.sample import SampleResult, sample, take
from tasks.evaluate.drift import DriftResult
from tasks.evaluate.health import HealthResult, health
from tasks.evaluate.promote import PromoteResult, promote
from tasks.rollout.rollout import rollout
from tasks.stage.quarantine import StageInputError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Round:
    """What a round gave."""

    candidate: Model
    decision: PromoteResult
    drift: DriftResult


class HealthCheckFailed(StageInputError):
    """The base model or the scorer is not what a loop can improve on."""


def prepare(profile: Profile) -> tuple[CaptionContext, Model]:
    """Before the first round: what all rounds share, the base measured, and the health check."""
    context = prepare_loop(profile)
    base = measure(context, "base", context.base)
    check_health(context, base)
    return context, base


def improvement_round(context: CaptionContext, champion: Model, base: Model, number: int) -> Round:
    """Sample images, roll out captions, reward sentences, fit V, search, fine-tune, measure, decide."""
    profile, name = context.profile, f"round-{number}"

    drawn = sample(profile.sample, context.source, round_draw(profile, number), context.base)  # images with prompts
    guide = fit_guide(context, champion.policy, drawn, train_needs(profile))  # rollouts, rewards, V
    trained = train_policy(context, guide, drawn)  # by the profile's method; sft searches first

    candidate = measure(context, name, context.handle(trained))
    moved = drift_of(context, candidate, base)
    against = compared(context, candidate.scores.scores, champion.scores.scores, f"{name} - {champion.name}")
    decision = promote.with_label(name)(
        profile.promote, against.comparisons, candidate=name, champion=champion.name, beyond=moved.beyond
    )

    if number > 1:  # beside the gate's comparison: this round against the base
        compared(context, candidate.scores.scores, base.scores.scores, f"{name} - base")
    elif searches(profile):  # and, once, what the search does for the untrained base
        measure_search(context, guide, drawn, base)
    return Round(candidate, decision, moved)


def searches(profile: Profile) -> bool:
    """Whether the profile's search is measured on the base."""
    wanted = "search" in profile.evaluate.decodings
    return wanted and isinstance(profile.finetune, SftConfig) and profile.search.strategy != "greedy"


def measure_search(context: CaptionContext, guide: RoundGuide, drawn: SampleResult, base: Model) -> None:
    """The base's captions of the benchmark by the profile's search, against its greedy ones, and the controls beside it."""
    strategy, benchmark = search_name(context.profile.search), context.benchmark
    searched = search_captions(context, guide, benchmark.images, benchmark.samples, f"base {strategy}")
    scores = chair_of(context, searched.captions, "base", strategy).scores
    compared(context, scores, base.scores.scores, f"base {strategy} - greedy")
    if "controls" in context.profile.evaluate.decodings:
        measure_controls(context, guide, drawn, base, Measured(searched, scores))


def check_health(context: CaptionContext, base: Model) -> HealthResult:
    """Roll out some of the benchmark's images and check whether the scorer separates true sentences from false ones.

    Raises:
        HealthCheckFailed: a bound is not met, and the profile's action is to stop.
    """
    profile, images = context.profile, context.benchmark.images
    part = take.with_label("health")(context.benchmark.samples, count=profile.health.images, seed=profile.seed).part
    answers = rollout.with_label("health").over_shards(profile.rollout, base.policy, images, part, seed=profile.seed)
    scored = score_answers(context, images, part, answers.rollouts, "health").scored
    verdict = health.with_label("health")(
        profile.health, base.scores.metrics, scored, part, context.annotations, subject="base"
    )
    problems = verdict.problems
    if isinstance(problems, list) and problems:  # not known in a plan
        text = "health check failed: " + "; ".join(problems)
        if profile.health.action == "stop":
            raise HealthCheckFailed(
                f"{text}. Set health's bounds to what this model is, or health.action=warn to go on"
            )
        log.warning(text)
    return verdict
