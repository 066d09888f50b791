"""Rewards of a round's answers: one scorer, or several rewards combined. Order only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flows.profiles.loading import locate
from flows.round.prepare import LoopContext
from storage.artifacts import ScorerCheckpoint, Table
from storage.schema import Image, Reward, Rollout, Sample
from tasks.configs.reward import (
    CompletenessReward,
    CosineReward,
    DetectedObjects,
    ObjectsReward,
    PluginReward,
    TokenReward,
)
from tasks.configs.sentinel import ObjectsVerdict, PluginVerdict, VerdictSource
from tasks.models.scorers import import_reward, reward_name
from tasks.reward.combine import combine
from tasks.reward.detect import DetectResult, detect
from tasks.reward.score import score


@dataclass(frozen=True)
class Scored:
    """Scores of sentences, and what gives a candidate the same score in a search."""

    scored: Table[Reward]
    scorer: ScorerCheckpoint


def score_answers(
    context: LoopContext, images: Table[Image], samples: Table[Sample], rollouts: Table[Rollout], label: str = ""
) -> Scored:
    """Every sentence scored by each of the profile's rewards, in a call of its own, so that another mix scores none anew."""
    config = context.profile.scorer
    if not config.rewards:
        alone = score.with_label(label).over_shards(context.scorer, images, samples, rollouts)
        return Scored(alone.scored, context.scorer)
    names = [reward_name(reward) for reward in config.rewards]
    scorers = scorers_of(context, images)
    parts = [
        score.with_label(f"{label} {name}".strip()).over_shards(scorer, images, samples, rollouts).scored
        for name, scorer in zip(names, scorers, strict=True)
    ]
    combined = combine.with_label(label)(config, parts, scorers, names)
    return Scored(combined.scored, combined.scorer)


def scorers_of(context: LoopContext, images: Table[Image]) -> list[ScorerCheckpoint]:
    """The profile's rewards; a detector reads these images and the benchmark's, for a search meets both."""
    scorers = []
    for reward in context.profile.scorer.rewards:
        if isinstance(reward, ObjectsReward):
            scorers.append(_detected(context, reward, _both(context, images)).objects)
        elif isinstance(reward, CompletenessReward):
            scorers.append(_detected(context, reward, _both(context, images)).completeness)
        elif isinstance(reward, CosineReward | TokenReward) and reward.checkpoint:
            located = reward.model_copy(update={"checkpoint": locate(reward.checkpoint)})
            scorers.append(import_reward(located, context.scorer, context.base, dtype=context.profile.scorer.dtype))
        else:
            scorers.append(import_reward(reward, context.scorer, context.base))
    return scorers


def objects_in(context: LoopContext, images: Table[Image]) -> ScorerCheckpoint:
    """What is in images, for a search that weighs completeness; as the profile's rewards detect it, or else the scorer."""
    rewards = context.profile.scorer.rewards
    complete = [reward for reward in rewards if isinstance(reward, CompletenessReward)]
    lists = [reward for reward in rewards if isinstance(reward, ObjectsReward)]
    reward = next(iter([*complete, *lists]), CompletenessReward())
    return _detected(context, reward, _both(context, images)).completeness


def _both(context: LoopContext, images: Table[Image]) -> list[Table[Image]]:
    """These images and the benchmark's."""
    return list(dict.fromkeys((images, context.benchmark.images)))


def _detected(context: LoopContext, wanted: DetectedObjects, images: list[Table[Image]]) -> DetectResult:
    table = locate(wanted.table) if wanted.table else ""
    return detect(DetectedObjects(table=table, threshold=wanted.threshold), context.scorer, images)


def verdict_sources(
    context: LoopContext, verdicts: Sequence[VerdictSource], scorer: ScorerCheckpoint, images: Table[Image]
) -> tuple[ScorerCheckpoint, ...]:
    """What each verdict on a sentence is made with.

    `scorer`: what gives the round's scores. `images`: the round's; a detector reads no others.
    """
    sources = []
    for verdict in verdicts:
        if isinstance(verdict, ObjectsVerdict):
            sources.append(_detected(context, verdict, [images]).objects)
        elif isinstance(verdict, PluginVerdict):
            sources.append(import_reward(PluginReward(name=verdict.name), context.scorer, context.base))
        else:
            sources.append(scorer)
    return tuple(sources)
