"""One round of self-training, in the order of a method section. Order only: every line is a stage."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

from flows.profiles import Profile
from storage.artifacts import ArtifactRef, StageOutput
from tasks.configs import SearchConfig
from tasks.evaluate import compare, evaluate
from tasks.finetune import finetune
from tasks.label import label
from tasks.promote import promote
from tasks.rollout import rollout
from tasks.sample import Draw, OpenSource, sample
from tasks.score import score
from tasks.search import search, search_needs, strategy_code
from tasks.train_value import train_value


class Model(NamedTuple):
    """A policy with its name and its greedy benchmark scores."""

    name: str
    policy: ArtifactRef
    scores: StageOutput


class Ground(NamedTuple):
    """What all rounds share: the training source, the scorer, the benchmark."""

    train: OpenSource
    scorer: ArtifactRef
    bench: StageOutput
    truth: StageOutput


class Guide(NamedTuple):
    """What a round's search is guided by."""

    rewards: StageOutput
    value: StageOutput | None
    backbone: ArtifactRef  # the checkpoint that the value model stands on


class Round(NamedTuple):
    """What a round gave."""

    candidate: Model
    guide: Guide
    decision: StageOutput


def improvement_round(profile: Profile, ground: Ground, champion: Model, number: int) -> Round:
    """Sample images, roll out captions, reward sentences, train V, search, fine-tune, measure, decide."""
    run: dict[str, Any] = {"runtime": profile.runtime}
    seeded: dict[str, Any] = {"seed": profile.seed, **run}
    shards, name = profile.runtime.shards, f"round-{number}"

    draw = Draw(images=profile.sample.images, seed=profile.seed, round_index=number - 1)
    drawn = sample(profile.sample, ground.train, draw, **run)
    images, samples = drawn["images"], drawn["samples"]

    rollouts = rollout.over_shards(shards, profile.rollout, profile.policy, champion.policy, images, samples, **seeded)
    scored = score.over_shards(shards, ground.scorer, images, samples, rollouts["rollouts"], **run)
    rewards = label(profile.label, scored["scored"], **run)

    value = None
    if "value" in search_needs(profile.search):
        value = train_value(
            profile.value, profile.policy, champion.policy, images, samples, rewards["rewards"], **seeded
        )
    guide = Guide(rewards, value, champion.policy)

    found = search_captions(profile, ground, champion.policy, guide, profile.search, images, samples)
    tuned = finetune(profile.finetune, profile.policy, champion.policy, images, samples, found["captions"], **seeded)

    candidate = measure(profile, ground, name, tuned["policy"])
    paired = compare(
        profile.evaluate,
        candidate.scores["scores"],
        champion.scores["scores"],
        label=f"{name} - {champion.name}",
        **run,
    )
    decision = promote(
        profile.promote, paired["comparisons"], candidate=name, champion=champion.name, label=name, **run
    )
    return Round(candidate, guide, decision)


def search_captions(
    profile: Profile,
    ground: Ground,
    policy: ArtifactRef,
    guide: Guide,
    config: SearchConfig,
    images: ArtifactRef,
    samples: ArtifactRef,
    label: str = "",
) -> StageOutput:
    """Captions of `samples` by the profile's search under a round's guide."""
    needs = search_needs(config)  # what it doesn't need must not be part of its key
    value = guide.value if "value" in needs else None
    return search.over_shards(
        profile.runtime.shards,
        config,
        profile.policy,
        policy,
        images,
        samples,
        seed=profile.seed,
        scorer=ground.scorer if "scorer" in needs else None,
        tau=cast(float, guide.rewards.facts["tau"]) if needs & {"scorer", "margin", "weak"} else None,
        value=value["value"] if value is not None else None,
        backbone=guide.backbone if value is not None else None,
        values=value["values"] if value is not None and "weak" in needs else None,
        code=strategy_code(config.strategy),
        runtime=profile.runtime,
        label=label,
    )


def measure(profile: Profile, ground: Ground, name: str, policy: ArtifactRef) -> Model:
    """A policy's greedy captions of the benchmark's images, scored."""
    # Nothing else of the search counts, so changing it leaves these captions as they are.
    greedy = SearchConfig(strategy="greedy", candidates=1, max_new_tokens=profile.search.max_new_tokens)
    captions = search.over_shards(
        profile.runtime.shards,
        greedy,
        profile.policy,
        policy,
        ground.bench["images"],
        ground.bench["samples"],
        seed=profile.seed,
        runtime=profile.runtime,
        label=f"{name} greedy",
    )
    return Model(name, policy, scores_of(profile, ground, captions, name, "greedy"))


def scores_of(profile: Profile, ground: Ground, captions: StageOutput, subject: str, decoding: str) -> StageOutput:
    """CHAIR of captions of the benchmark's images."""
    return evaluate(
        profile.evaluate,
        captions["captions"],
        ground.bench["samples"],
        ground.truth["annotations"],
        subject=subject,
        decoding=decoding,
        runtime=profile.runtime,
        label=f"{subject} {decoding}",
    )
