"""How a round's policy learns, by the profile's method; all of them from the same rollouts. Order only."""

from __future__ import annotations

from typing import Any, cast

from flows.profiles.loading import Profile
from flows.round.guide import Ground, Guide, search_captions
from storage.artifacts import ArtifactRef, StageOutput
from tasks.configs.search import SearchConfig
from tasks.configs.train import DpoConfig, DpoSettings, FisaoConfig, GrpoConfig, SftConfig, switch_method
from tasks.data.questions import ask, questions_digest
from tasks.data.sample import annotate
from tasks.reward.tokens import score_tokens, split_token_baselines, token_baselines
from tasks.search.search import search, search_needs
from tasks.train.dpo import tune_dpo
from tasks.train.finetune import finetune
from tasks.train.fisao import tune_fisao
from tasks.train.grpo import tune_grpo
from tasks.train.prefer import prefer
from tasks.train.replay import Replay, open_replay, read_replay, replay_count


def tuning_needs(profile: Profile) -> frozenset[str]:
    """What the method needs of a round's guide: all that its search does, or a value model, or nothing but rewards."""
    tune = profile.finetune
    if isinstance(tune, SftConfig):
        return search_needs(profile.search)
    by_value = (isinstance(tune, DpoConfig) and tune.dpo.by == "value") or (
        isinstance(tune, GrpoConfig) and tune.grpo.reward == "value"
    )
    return frozenset({"value"}) if by_value else frozenset()


def tune(profile: Profile, ground: Ground, policy: ArtifactRef, guide: Guide, drawn: StageOutput) -> StageOutput:
    """The policy tuned on its own answers to the round's prompts."""
    method = {"sft": by_captions, "dpo": by_preferences, "grpo": by_groups, "fisao": by_words}[profile.finetune.method]
    return method(profile, ground, policy, guide, drawn)


def by_captions(profile: Profile, ground: Ground, policy: ArtifactRef, guide: Guide, drawn: StageOutput) -> StageOutput:
    """Supervised: the captions that a guided search finds, with other material among them if the profile wants that."""
    images, samples = drawn["images"], drawn["samples"]
    found = search_captions(profile, ground, policy, guide, profile.search, images, samples)
    return finetune(
        switch_method(profile.finetune, SftConfig),
        profile.policy,
        policy,
        images,
        samples,
        found["captions"],
        seed=profile.seed,
        runtime=profile.runtime,
        **replayed(profile, ground, drawn),
    )


def replayed(profile: Profile, ground: Ground, drawn: StageOutput) -> dict[str, Any]:
    """The argument of `finetune` that says what is replayed: a file's, or the base's own answers to questions."""
    replay = switch_method(profile.finetune, SftConfig).replay
    run: dict[str, Any] = {"seed": profile.seed, "runtime": profile.runtime, "label": "replay"}
    if replay.share == 0:
        return {}
    if replay.source != "self":
        count = replay_count(replay.share, profile.sample.images)
        read = read_replay(profile.sample, open_replay(replay.source), count=count, **run)
        return {"replay": Replay(read["images"], read["samples"], read["captions"])}
    digest = questions_digest(profile.questions, benchmark=False)
    asked = ask(profile.questions, ground.train, drawn["images"], benchmark=False, file_digest=digest, **run)
    said = greedy_answers(profile, ground.base, drawn["images"], asked["samples"], "replay")
    return {"replay": Replay(drawn["images"], asked["samples"], said["captions"])}


def greedy_answers(
    profile: Profile, policy: ArtifactRef, images: ArtifactRef, samples: ArtifactRef, label: str
) -> StageOutput:
    """Greedy answers to any prompts."""
    # Nothing else of the search counts, so changing it leaves these answers as they are.
    greedy = SearchConfig(strategy="greedy", candidates=1, max_new_tokens=profile.search.max_new_tokens)
    return search.over_shards(
        profile.runtime.shards, greedy, profile.policy, policy, images, samples,
        seed=profile.seed, runtime=profile.runtime, label=label,
    )  # fmt: skip


def by_preferences(
    profile: Profile, ground: Ground, policy: ArtifactRef, guide: Guide, drawn: StageOutput
) -> StageOutput:
    """DPO: each prompt's best answer against its worst."""
    run: dict[str, Any] = {"runtime": profile.runtime}
    # How strongly preferences are learned is no matter of which they are.
    config = switch_method(profile.finetune, DpoConfig)
    ranked = config.dpo.model_copy(update={"beta": DpoSettings().beta})
    seen = {"model": profile.policy, "images": drawn["images"], **judge(guide)} if ranked.by == "value" else {}
    pairs = prefer(ranked, drawn["samples"], guide.rollouts, guide.rewards["rewards"], **seen, **run)
    return tune_dpo(
        config, profile.policy, policy, drawn["images"], drawn["samples"], pairs["preferences"],
        seed=profile.seed, **run,
    )  # fmt: skip


def by_groups(profile: Profile, ground: Ground, policy: ArtifactRef, guide: Guide, drawn: StageOutput) -> StageOutput:
    """GRPO: new answers, each rewarded against the others to its prompt."""
    return tune_grpo(
        switch_method(profile.finetune, GrpoConfig), profile.policy, policy, drawn["images"], drawn["samples"], guide.scorer,
        tau=cast(float, guide.rewards.facts["tau"]), shaping=profile.label.shaping, alpha=profile.label.alpha,
        seed=profile.seed, runtime=profile.runtime, **judge(guide),
    )  # fmt: skip


def judge(guide: Guide) -> dict[str, Any]:
    """The value model as arguments, where there is one: `tuning_needs` decided that."""
    return {} if guide.value is None else {"value": guide.value["value"], "backbone": guide.backbone}


def by_words(profile: Profile, ground: Ground, policy: ArtifactRef, guide: Guide, drawn: StageOutput) -> StageOutput:
    """FiSAO: PPO with a reward for every object word, its margins measured on the round's own rollouts."""
    run: dict[str, Any] = {"runtime": profile.runtime}
    tuning, samples, rollouts = switch_method(profile.finetune, FisaoConfig), drawn["samples"], guide.rollouts
    config = tuning.fisao
    heard = score_tokens.over_shards(profile.runtime.shards, ground.scorer, drawn["images"], samples, rollouts, **run)[
        "token_scores"
    ]
    if config.baselines == "annotations":
        truth = annotate(ground.train, drawn["images"], label="train", **run)["annotations"]
        rewarded = token_baselines(config, heard, samples, rollouts, truth, **run)
    else:
        rewarded = split_token_baselines(config, heard, **run)
    margins: dict[str, Any] = {name: rewarded.facts[name] for name in ("mu_right", "mu_hallucinated", "deviation")}
    return tune_fisao(
        tuning, profile.policy, policy, drawn["images"], samples, rollouts, rewarded["token_scores"],
        ground.scorer, seed=profile.seed, **margins, **run,
    )  # fmt: skip
