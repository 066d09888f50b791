"""One round of self-training, in the order of a method section. Order only: every line is a stage."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

from flows.profiles import Profile, locate
from storage.artifacts import ArtifactRef, StageOutput
from storage.checkpoints import import_checkpoint
from tasks.configs import FixedTau, SearchConfig
from tasks.evaluate import compare, evaluate
from tasks.finetune import finetune
from tasks.guided_rollouts import guided_rollouts
from tasks.label import label
from tasks.promote import promote
from tasks.rollout import rollout
from tasks.sample import Draw, OpenSource, annotate, open_source, sample
from tasks.score import score
from tasks.scorers import import_scorer
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


class Answers(NamedTuple):
    """Answers with their sentences' rewards."""

    rollouts: StageOutput
    rewards: StageOutput


class Round(NamedTuple):
    """What a round gave."""

    candidate: Model
    guide: Guide
    decision: StageOutput


def lay_ground(profile: Profile) -> tuple[Ground, ArtifactRef]:
    """The sources, the scorer and the benchmark; and the base policy."""
    run: dict[str, Any] = {"runtime": profile.runtime}
    bench_source = open_source(profile.data.benchmark)
    draw = Draw(images=profile.evaluate.images, seed=profile.seed, benchmark=True)
    bench = sample(profile.sample, bench_source, draw, label="benchmark", **run)
    truth = annotate(bench_source, bench["images"], label="benchmark", **run)
    base = import_checkpoint("policy", locate(profile.policy.checkpoint))
    scorer = import_scorer(locate(profile.scorer.checkpoint))
    return Ground(open_source(profile.data.train), scorer, bench, truth), base


def improvement_round(profile: Profile, ground: Ground, champion: Model, number: int) -> Round:
    """Sample images, roll out captions, reward sentences, train V, search, fine-tune, measure, decide."""
    run: dict[str, Any] = {"runtime": profile.runtime}
    seeded: dict[str, Any] = {"seed": profile.seed, **run}
    name = f"round-{number}"

    drawn, guide = learn_guide(profile, ground, champion.policy, number, search_needs(profile.search))
    images, samples = drawn["images"], drawn["samples"]

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


def learn_guide(
    profile: Profile, ground: Ground, policy: ArtifactRef, number: int, needs: frozenset[str]
) -> tuple[StageOutput, Guide]:
    """(the round's images and samples, what guides a search there): a policy's own answers, rewarded, and V if needed."""
    run: dict[str, Any] = {"runtime": profile.runtime}
    seeded: dict[str, Any] = {"seed": profile.seed, **run}
    shards = profile.runtime.shards

    draw = Draw(images=profile.sample.images, seed=profile.seed, round_index=number - 1)
    drawn = sample(profile.sample, ground.train, draw, **run)
    images, samples = drawn["images"], drawn["samples"]

    rollouts = rollout.over_shards(shards, profile.rollout, profile.policy, policy, images, samples, **seeded)
    scored = score.over_shards(shards, ground.scorer, images, samples, rollouts["rollouts"], **run)
    rewards = label(profile.label, scored["scored"], **run)

    guide = Guide(rewards, None, policy)
    if "value" in needs:
        guide = with_value(profile, ground, guide, drawn, rollouts)
    return drawn, guide


def with_value(profile: Profile, ground: Ground, guide: Guide, drawn: StageOutput, rollouts: StageOutput) -> Guide:
    """The guide with V of the policy's own answers; `value.guided_rounds` times V learns from captions it found, too.

    Both sets, for a search chooses among all that the policy may say: guided captions alone hold hardly a bad sentence.
    """
    rounds, answers = profile.value.guided_rounds, [Answers(rollouts, guide.rewards)]
    for number in range(rounds + 1):
        # The one that stays has the plain name.
        name = "" if number == rounds else f"before guided-{number + 1}"
        guide = guide._replace(value=train_on(profile, guide.backbone, drawn, answers, label=name))
        if number < rounds:
            answers = [answers[0], guided_answers(profile, ground, guide, drawn, number + 1)]
    return guide


def train_on(
    profile: Profile, policy: ArtifactRef, drawn: StageOutput, answers: list[Answers], label: str
) -> StageOutput:
    """V of these answers."""
    rewards = [one.rewards["rewards"] for one in answers]
    rollouts = [one.rollouts["rollouts"] for one in answers]
    return train_value(
        profile.value.model_copy(update={"guided_rounds": 0}),  # how often is no matter of one training
        profile.policy,
        policy,
        drawn["images"],
        drawn["samples"],
        rewards,
        # What it doesn't read must not be part of its key.
        rollouts=rollouts if profile.value.reads == "policy_states" else None,
        seed=profile.seed,
        runtime=profile.runtime,
        label=label,
    )


def guided_answers(profile: Profile, ground: Ground, guide: Guide, drawn: StageOutput, number: int) -> Answers:
    """The round's samples searched under the guide, rewarded with the margin that its own answers were."""
    run: dict[str, Any] = {"runtime": profile.runtime, "label": f"guided-{number}"}
    images, samples, shards = drawn["images"], drawn["samples"], profile.runtime.shards
    # Not validated: in a plan the margin is not known yet, and an installed reward may have any scale.
    tau = FixedTau.model_construct(value=cast(float, guide.rewards.facts["tau"]))
    found = search_captions(profile, ground, guide.backbone, guide, profile.search, images, samples, run["label"])
    said = guided_rollouts(found["captions"], number=number, seed=profile.seed, **run)
    scored = score.over_shards(shards, ground.scorer, images, samples, said["rollouts"], **run)
    return Answers(said, label(profile.label.model_copy(update={"tau": tau}), scored["scored"], **run))


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
        given["scorer"] = ground.scorer
    if guide is not None and needs & {"scorer", "margin", "weak"}:
        given["tau"] = cast(float, guide.rewards.facts["tau"])
    if guide is not None and "answers" in needs:
        given |= {name: cast(float, guide.rewards.facts[name]) for name in ("answer_mean", "answer_std")}
    if guide is not None and guide.value is not None and "value" in needs:
        given |= {"value": guide.value["value"], "backbone": guide.backbone}
        if "weak" in needs:
            given["values"] = guide.value["values"]
    return given


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
