"""Rewards of a round's answers: one scorer, or several rewards made one. Order only: every line is a stage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from flows.profiles.loading import Profile, locate
from storage.artifacts import ArtifactRef
from tasks.configs.reward import CosineReward, ObjectsReward, TokenReward
from tasks.models.scorers import import_reward, reward_name
from tasks.reward.combine import combine
from tasks.reward.detect import detect
from tasks.reward.score import score

if TYPE_CHECKING:
    from flows.round.guide import Ground


class Scored(NamedTuple):
    """Scores of sentences, and what gives a candidate the same score in a search."""

    scored: ArtifactRef
    scorer: ArtifactRef


def score_answers(
    profile: Profile, ground: Ground, images: ArtifactRef, samples: ArtifactRef, rollouts: ArtifactRef, label: str = ""
) -> Scored:
    """Every sentence scored by what the profile rewards; each reward is a call of its own, so another mix asks none anew."""
    run: dict[str, Any] = {"runtime": profile.runtime}
    shards = profile.runtime.shards
    if not profile.scorer.rewards:
        alone = score.over_shards(shards, ground.scorer, images, samples, rollouts, label=label, **run)
        return Scored(alone["scored"], ground.scorer)
    names = [reward_name(one) for one in profile.scorer.rewards]
    scorers, parts = rewards_of(profile, ground, images), []
    for name, scorer in zip(names, scorers, strict=True):
        told = f"{label} {name}".strip()
        parts.append(score.over_shards(shards, scorer, images, samples, rollouts, label=told, **run)["scored"])
    mixed = combine(profile.scorer, parts, scorers, names, label=label, **run)
    return Scored(mixed["scored"], mixed["scorer"])


def rewards_of(profile: Profile, ground: Ground, images: ArtifactRef) -> list[ArtifactRef]:
    """The profile's rewards; a detector looks at these images and the benchmark's, for a search meets both."""
    found = []
    for one in profile.scorer.rewards:
        if isinstance(one, ObjectsReward):
            one = one.model_copy(update={"table": locate(one.table) if one.table else ""})
            seen = list(dict.fromkeys((images, ground.bench["images"])))
            found.append(detect(one, ground.scorer, seen, runtime=profile.runtime)["objects"])
            continue
        if isinstance(one, CosineReward | TokenReward) and one.checkpoint:
            one = one.model_copy(update={"checkpoint": locate(one.checkpoint)})
        found.append(import_reward(one, ground.scorer, ground.base, profile.policy))
    return found
