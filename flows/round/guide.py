"""What all rounds stand on, and what guides a round's search: rewards of a policy's own answers and V of them. Order only."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

from flows.profiles.loading import Profile, locate
from flows.round.rewards import score_answers
from storage.artifacts import ArtifactRef, StageOutput
from storage.checkpoints import import_checkpoint
from tasks.configs.reward import FixedTau
from tasks.configs.search import SearchConfig
from tasks.data.sample import Draw, OpenSource, annotate, open_source, sample
from tasks.models.scorers import import_scorer
from tasks.reward.label import label
from tasks.reward.score import score
from tasks.rollout.guided import guided_rollouts
from tasks.rollout.reference import reference_answers
from tasks.rollout.rollout import rollout
from tasks.search.search import search, search_needs, strategy_code
from tasks.value.train_value import train_value


class Ground(NamedTuple):
    """What all rounds share: the base policy, the training source, the scorer, the benchmark."""

    base: ArtifactRef
    train: OpenSource
    scorer: ArtifactRef  # alone, or beside the profile's other rewards
    bench: StageOutput
    truth: StageOutput


class Guide(NamedTuple):
    """What a round's search is guided by."""

    scorer: ArtifactRef  # gives a candidate the score that the answers' sentences have got
    rollouts: ArtifactRef
    rewards: StageOutput
    value: StageOutput | None
    backbone: ArtifactRef  # the checkpoint that the value model stands on


class Answers(NamedTuple):
    """Answers with their sentences' rewards."""

    rollouts: ArtifactRef
    rewards: ArtifactRef


def lay_ground(profile: Profile) -> tuple[Ground, ArtifactRef]:
    """The sources, the scorer and the benchmark; and the base policy."""
    run: dict[str, Any] = {"runtime": profile.runtime}
    bench_source = open_source(profile.data.benchmark)
    draw = Draw(images=profile.evaluate.images, seed=profile.seed, benchmark=True)
    bench = sample(profile.sample, bench_source, draw, label="benchmark", **run)
    truth = annotate(bench_source, bench["images"], label="benchmark", **run)
    base = import_checkpoint("policy", locate(profile.policy.checkpoint))
    scorer = import_scorer(locate(profile.scorer.checkpoint))
    return Ground(base, open_source(profile.data.train), scorer, bench, truth), base


def learn_guide(
    profile: Profile, ground: Ground, policy: ArtifactRef, number: int, needs: frozenset[str]
) -> tuple[StageOutput, Guide]:
    """(the round's images and samples, what guides a search there): a policy's own answers, rewarded, and V if needed."""
    run: dict[str, Any] = {"runtime": profile.runtime}
    shards = profile.runtime.shards

    draw = Draw(images=profile.sample.images, seed=profile.seed, round_index=number - 1)
    drawn = sample(profile.sample, ground.train, draw, **run)
    images, samples = drawn["images"], drawn["samples"]

    answers = rollout.over_shards(
        shards, profile.rollout, profile.policy, policy, images, samples, seed=profile.seed, **run
    )
    scored = score_answers(profile, ground, images, samples, answers["rollouts"])
    rewards = label(profile.label, scored.scored, **run)
    guide = Guide(scored.scorer, answers["rollouts"], rewards, None, policy)
    if "value" in needs:
        guide = with_value(profile, ground, guide, drawn)
    return drawn, guide


def with_value(profile: Profile, ground: Ground, guide: Guide, drawn: StageOutput) -> Guide:
    """The guide with V of the policy's own answers; `value.guided_rounds` times V learns from captions it found, too.

    Both sets, for a search chooses among all that the policy may say: guided captions alone hold hardly a bad sentence.
    """
    own = [Answers(guide.rollouts, guide.rewards["rewards"]), *annotated_answers(profile, ground, drawn)]
    answers, rounds = own, profile.value.guided_rounds
    for number in range(rounds + 1):
        # The one that stays has the plain name.
        name = "" if number == rounds else f"before guided-{number + 1}"
        guide = guide._replace(value=train_on(profile, guide.backbone, drawn, answers, label=name))
        if number < rounds:
            answers = [*own, guided_answers(profile, ground, guide, drawn, number + 1)]
    return guide


def annotated_answers(profile: Profile, ground: Ground, drawn: StageOutput) -> list[Answers]:
    """The training images' annotated captions at a constant reward (ViMaR section 3.2), if the profile wants them."""
    if profile.value.ground_truth is None:
        return []
    run: dict[str, Any] = {"runtime": profile.runtime}
    known = annotate(ground.train, drawn["images"], label="train", **run)["annotations"]
    said = reference_answers(drawn["samples"], known, reward=profile.value.ground_truth, seed=profile.seed, **run)
    return [Answers(said["rollouts"], said["rewards"])]


def train_on(
    profile: Profile, policy: ArtifactRef, drawn: StageOutput, answers: list[Answers], label: str
) -> StageOutput:
    """V of these answers."""
    return train_value(
        # Whose answers, and how often: its inputs say.
        profile.value.model_copy(update={"guided_rounds": 0, "ground_truth": None}),
        profile.policy,
        policy,
        drawn["images"],
        drawn["samples"],
        [one.rewards for one in answers],
        # What it doesn't read must not be part of its key.
        rollouts=[one.rollouts for one in answers] if profile.value.reads == "policy_states" else None,
        seed=profile.seed,
        runtime=profile.runtime,
        label=label,
    )


def guided_answers(profile: Profile, ground: Ground, guide: Guide, drawn: StageOutput, number: int) -> Answers:
    """The round's samples searched under the guide, rewarded with the margin that its own answers were."""
    run: dict[str, Any] = {"runtime": profile.runtime, "label": f"guided-{number}"}
    images, samples = drawn["images"], drawn["samples"]
    # Not validated: in a plan the margin is not known yet, and an installed reward may have any scale.
    tau = FixedTau.model_construct(value=cast(float, guide.rewards.facts["tau"]))
    found = search_captions(profile, ground, guide.backbone, guide, profile.search, images, samples, run["label"])
    said = guided_rollouts(found["captions"], number=number, seed=profile.seed, **run)
    scored = score.over_shards(profile.runtime.shards, guide.scorer, images, samples, said["rollouts"], **run)
    rewarded = label(profile.label.model_copy(update={"tau": tau}), scored["scored"], **run)
    return Answers(said["rollouts"], rewarded["rewards"])


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
    """Captions of `samples` by a search under a round's guide."""
    return search.over_shards(
        profile.runtime.shards,
        config,
        profile.policy,
        policy,
        images,
        samples,
        seed=profile.seed,
        runtime=profile.runtime,
        label=label,
        **search_guides(ground, guide, config),
    )


def search_guides(ground: Ground, guide: Guide | None, config: SearchConfig) -> dict[str, Any]:
    """The arguments of `search` that guide it; what it doesn't need must not be part of its key."""
    needs = search_needs(config)
    given: dict[str, Any] = {"code": strategy_code(config.strategy)}
    if "scorer" in needs:
        given["scorer"] = ground.scorer if guide is None else guide.scorer
    if guide is not None and needs & {"scorer", "margin", "weak"}:
        given["tau"] = cast(float, guide.rewards.facts["tau"])
    if guide is not None and "answers" in needs:
        given |= {name: cast(float, guide.rewards.facts[name]) for name in ("answer_mean", "answer_std")}
    if guide is not None and guide.value is not None and "value" in needs:
        given |= {"value": guide.value["value"], "backbone": guide.backbone}
        if "weak" in needs:
            given["values"] = guide.value["values"]
    return given
