"""How a round's policy learns, by the profile's method; all methods learn from the same rollouts. Order only."""

from __future__ import annotations

from flows.profiles.loading import Profile
from flows.round.guide import RoundGuide, search_captions
from flows.round.measure import greedy_answers
from flows.round.prepare import LoopContext
from tasks.configs.train import DpoConfig
from tasks.data.questions import ask, questions_digest
from tasks.data.sample import SampleResult, annotate
from tasks.reward.tokens import score_tokens, split_token_baselines, token_baselines
from tasks.search.search import search_needs
from tasks.train.dpo import train_dpo
from tasks.train.finetune import finetune
from tasks.train.fisao import WordReward, train_fisao
from tasks.train.grpo import ShapedReward, train_grpo
from tasks.train.prefer import prefer
from tasks.train.publish import TrainResult
from tasks.train.replay import Replay, open_replay, read_replay, replay_count


def train_needs(profile: Profile) -> frozenset[str]:
    """What the method needs of a round's guide: all that its search does, or a value model, or rewards only."""
    config = profile.finetune
    if config.method == "sft":
        return search_needs(profile.search)
    by_value = (config.method, config.dpo.by) == ("dpo", "value") or (config.method, config.grpo.reward) == (
        "grpo",
        "value",
    )
    return frozenset({"value"}) if by_value else frozenset()


def train_policy(context: LoopContext, guide: RoundGuide, drawn: SampleResult) -> TrainResult:
    """The policy trained on its own answers to the round's prompts."""
    method = {"sft": sft, "dpo": dpo, "grpo": grpo, "fisao": fisao}[context.profile.finetune.method]
    return method(context, guide, drawn)


def sft(context: LoopContext, guide: RoundGuide, drawn: SampleResult) -> TrainResult:
    """Supervised: the captions that a guided search finds, with other material among them if the profile wants that."""
    profile = context.profile
    captions = search_captions(context, guide, drawn.images, drawn.samples).captions
    return finetune(
        profile.finetune.alone(), guide.policy, drawn.images, drawn.samples, captions,
        seed=profile.seed, replay=replayed(context, drawn),
    )  # fmt: skip


def replayed(context: LoopContext, drawn: SampleResult) -> Replay | None:
    """What is replayed: a file's examples, or the base's own answers to questions; None: nothing."""
    profile, replay = context.profile, context.profile.finetune.replay
    if replay.share == 0:
        return None
    if replay.source != "self":
        count = replay_count(replay.share, profile.sample.images)
        source = open_replay(replay.source)
        examples = read_replay.with_label("replay")(profile.sample, source, count=count, seed=profile.seed)
        return Replay(examples.images, examples.samples, examples.captions)
    digest = questions_digest(profile.questions, benchmark=False)
    questions = ask.with_label("replay")(
        profile.questions, context.source, drawn.images, benchmark=False, file_digest=digest, seed=profile.seed
    )
    answers = greedy_answers(context, context.base, drawn.images, questions.samples, "replay")
    return Replay(drawn.images, questions.samples, answers.captions)


def dpo(context: LoopContext, guide: RoundGuide, drawn: SampleResult) -> TrainResult:
    """DPO: each prompt's best answer against its worst."""
    profile = context.profile
    # How strongly preferences are learned does not change which they are.
    ranking = profile.finetune.dpo.model_copy(update={"beta": DpoConfig().beta})
    by_value = ranking.by == "value"
    pairs = prefer(
        ranking, drawn.samples, guide.rollouts, guide.rewards.rewards,
        value=guide.value_handle if by_value else None, images=drawn.images if by_value else None,
    )  # fmt: skip
    return train_dpo(
        profile.finetune.alone(), guide.policy, drawn.images, drawn.samples, pairs.preferences, seed=profile.seed
    )


def grpo(context: LoopContext, guide: RoundGuide, drawn: SampleResult) -> TrainResult:
    """GRPO: new answers, each rewarded against the others to its prompt."""
    profile = context.profile
    reward = ShapedReward(guide.scorer, guide.rewards.margin, profile.label.shaping, profile.label.alpha)
    return train_grpo(
        profile.finetune.alone(),
        guide.policy,
        drawn.images,
        drawn.samples,
        reward,
        guide.value_handle,
        seed=profile.seed,
    )


def fisao(context: LoopContext, guide: RoundGuide, drawn: SampleResult) -> TrainResult:
    """FiSAO: PPO with a reward for every object word, its margins measured on the round's own rollouts."""
    profile, images, samples = context.profile, drawn.images, drawn.samples
    config = profile.finetune.fisao
    words = score_tokens.over_shards(context.scorer, images, samples, guide.rollouts).token_scores
    if config.baselines == "annotations":
        truth = annotate.with_label("train")(context.source, images).annotations
        rewarded = token_baselines(config, words, samples, guide.rollouts, truth)
    else:
        rewarded = split_token_baselines(config, words)
    return train_fisao(
        profile.finetune.alone(), guide.policy, images, samples, guide.rollouts, rewarded.token_scores,
        WordReward(context.scorer, rewarded.baselines), seed=profile.seed,
    )  # fmt: skip
