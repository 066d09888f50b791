"""How a round's policy learns, by the profile's method; all methods learn from the same rollouts. Order only."""

from __future__ import annotations

from flows.profiles.loading import Profile
from flows.round.guide import RoundGuide, search_captions
from flows.round.measure import greedy_answers
from flows.round.prepare import LoopContext
from flows.round.rewards import verdict_sources
from tasks.configs.sentinel import SentinelSettings
from tasks.configs.train import DpoConfig, DpoSettings, FisaoConfig, GrpoConfig, ReplayConfig, SentinelConfig, SftConfig
from tasks.data.question_files import questions_digest
from tasks.data.questions import ask
from tasks.data.sample import SampleResult, annotate
from tasks.reward.tokens import score_tokens, split_token_baselines, token_baselines
from tasks.search.search import search_needs
from tasks.train.dpo import train_dpo
from tasks.train.finetune import finetune
from tasks.train.fisao import WordReward, train_fisao
from tasks.train.grpo import ShapedReward, train_grpo
from tasks.train.pair_sentences import JudgedBy, pair_sentences
from tasks.train.prefer import prefer
from tasks.train.replay import Replay, open_replay, read_replay, replay_count
from tasks.train.sentinel import train_sentinel
from tasks.train.training import TrainResult


def train_needs(profile: Profile) -> frozenset[str]:
    """What the method needs of a round's guide: all that its search does, or a value model, or rewards only."""
    config = profile.finetune
    if isinstance(config, SftConfig | SentinelConfig):
        return search_needs(profile.search)
    by_value = (isinstance(config, DpoConfig) and config.dpo.by == "value") or (
        isinstance(config, GrpoConfig) and config.grpo.reward == "value"
    )
    return frozenset({"value"}) if by_value else frozenset()


def train_policy(context: LoopContext, guide: RoundGuide, drawn: SampleResult) -> TrainResult:
    """The policy trained on its own answers to the round's prompts, by the profile's method."""
    config = context.profile.finetune
    if isinstance(config, SftConfig):
        return sft(context, config, guide, drawn)
    if isinstance(config, DpoConfig):
        return dpo(context, config, guide, drawn)
    if isinstance(config, GrpoConfig):
        return grpo(context, config, guide, drawn)
    if isinstance(config, SentinelConfig):
        return sentinel(context, config, guide, drawn)
    return fisao(context, config, guide, drawn)


def sft(context: LoopContext, config: SftConfig, guide: RoundGuide, drawn: SampleResult) -> TrainResult:
    """Supervised: the captions that a guided search finds, with other material among them if the profile wants that."""
    captions = search_captions(context, guide, drawn.images, drawn.samples).captions
    replay = replayed(context, config.replay, drawn)
    return finetune(
        config, guide.policy, drawn.images, drawn.samples, captions, seed=context.profile.seed, replay=replay
    )


def replayed(context: LoopContext, config: ReplayConfig, drawn: SampleResult) -> Replay | None:
    """What is replayed: a file's examples, or the base's own answers to questions; None: nothing."""
    profile = context.profile
    if config.share == 0:
        return None
    if config.source != "self":
        count = replay_count(config.share, profile.sample.images)
        source = open_replay(config.source)
        examples = read_replay.with_label("replay")(profile.sample, source, count=count, seed=profile.seed)
        return Replay(examples.images, examples.samples, examples.captions)
    digest = questions_digest(profile.questions, benchmark=False)
    questions = ask.with_label("replay")(
        profile.questions, context.source, drawn.images, benchmark=False, file_digest=digest, seed=profile.seed
    )
    answers = greedy_answers(context, context.base, drawn.images, questions.samples, "replay")
    return Replay(drawn.images, questions.samples, answers.captions)


def dpo(context: LoopContext, config: DpoConfig, guide: RoundGuide, drawn: SampleResult) -> TrainResult:
    """DPO: each prompt's best answer against its worst."""
    # How strongly preferences are learned does not change which they are.
    ranking = config.dpo.model_copy(update={"beta": DpoSettings().beta})
    by_value = ranking.by == "value"
    pairs = prefer(
        ranking,
        drawn.samples,
        guide.rollouts,
        guide.rewards.rewards,
        value=guide.value_handle if by_value else None,
        images=drawn.images if by_value else None,
    )
    seed = context.profile.seed
    return train_dpo(config, guide.policy, drawn.images, drawn.samples, pairs.preferences, seed=seed)


def sentinel(context: LoopContext, config: SentinelConfig, guide: RoundGuide, drawn: SampleResult) -> TrainResult:
    """SENTINEL: of a search's candidates after the same answer so far, a true sentence against a hallucinated one."""
    searched = search_captions(context, guide, drawn.images, drawn.samples)
    # How strongly pairs are learned does not change which they are.
    pairing = config.sentinel.model_copy(update={"beta": SentinelSettings().beta})
    judged = JudgedBy(
        verdict_sources(context, config.sentinel.verdicts, guide.scorer, drawn.images), guide.rewards.margin
    )
    paired = pair_sentences(pairing, drawn.images, searched.captions, searched.search_trace, judged)
    seed = context.profile.seed
    return train_sentinel(config, guide.policy, drawn.images, drawn.samples, paired.sentence_pairs, seed=seed)


def grpo(context: LoopContext, config: GrpoConfig, guide: RoundGuide, drawn: SampleResult) -> TrainResult:
    """GRPO: new answers, each rewarded against the others to its prompt."""
    rule = context.profile.label
    reward = ShapedReward(guide.scorer, guide.rewards.margin, rule.shaping, rule.alpha)
    seed = context.profile.seed
    return train_grpo(config, guide.policy, drawn.images, drawn.samples, reward, guide.value_handle, seed=seed)


def fisao(context: LoopContext, config: FisaoConfig, guide: RoundGuide, drawn: SampleResult) -> TrainResult:
    """FiSAO: PPO with a reward for every object word, its margins measured on the round's own rollouts."""
    images, samples = drawn.images, drawn.samples
    scored = score_tokens.over_shards(context.scorer, images, samples, guide.rollouts, per=config.fisao.rewards)
    words = scored.token_scores
    if config.fisao.baselines == "annotations":
        truth = annotate.with_label("train")(context.source, images).annotations
        rewarded = token_baselines(config.fisao, words, samples, guide.rollouts, truth)
    else:
        rewarded = split_token_baselines(config.fisao, words)
    return train_fisao(
        config,
        guide.policy,
        images,
        samples,
        guide.rollouts,
        rewarded.token_scores,
        WordReward(context.scorer, rewarded.baselines),
        seed=context.profile.seed,
    )
