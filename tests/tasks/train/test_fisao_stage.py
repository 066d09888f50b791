"""FiSAO's fine-tuning: words that score badly become rarer, and a whole checkpoint comes out."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch

from storage import checkpoints, lake
from storage.artifacts import Table
from storage.schema import Rollout, TokenScore
from tasks.configs.train import FisaoConfig, FisaoSettings
from tasks.core.models.policy import load_policy
from tasks.reward.tokens import TokenRewardsResult, score_tokens, split_token_baselines
from tasks.stage.quarantine import StageInputError
from tasks.train.fisao import WordReward, train_fisao
from tasks.train.training import TrainResult
from tests.support.small_world import drawn, policy, rollouts, scorer

CONFIG = FisaoConfig(
    train="full",
    lr=2e-4,
    batch_size=8,
    fisao=FisaoSettings(baselines="split", passes=1, iterations=1, first="rollouts"),
)


@cache
def rewarded() -> TokenRewardsResult:
    world = drawn()
    scored = score_tokens.fn(scorer(), world.images, world.samples, rollouts())
    return split_token_baselines.fn(CONFIG.fisao, scored.token_scores)


def trained(
    config: FisaoConfig = CONFIG,
    answers: Table[Rollout] | None = None,
    words: Table[TokenScore] | None = None,
    seed: int = 0,
) -> TrainResult:
    world, reward = drawn(), WordReward(scorer(), rewarded().baselines)
    answers, words = answers or rollouts(), words or rewarded().token_scores
    return train_fisao.fn(config, policy(), world.images, world.samples, answers, words, reward, seed=seed)


def with_fisao(**options: object) -> FisaoConfig:
    return CONFIG.model_copy(update={"fisao": CONFIG.fisao.model_copy(update=options)})


@pytest.mark.parametrize("train", ["full", "lora"])
def test_a_whole_checkpoint_comes_out_whose_vision_is_as_it_was(train: str) -> None:
    output = trained(CONFIG.model_copy(update={"train": train, "lora_rank": 2}))
    folder = checkpoints.folder(output.policy)
    assert not list(folder.glob("adapter*")), "adapters were not merged"
    before = load_policy(checkpoints.folder(policy().checkpoint), digest="").model
    theirs = dict(load_policy(folder, digest="").model.named_parameters())
    changed = {name for name, p in before.named_parameters() if not torch.equal(p, theirs[name])}
    assert changed
    assert not any("vision" in name for name in changed)
    assert output.figures["relative_change"] > 0


def test_new_answers_are_drawn_for_every_sample_and_scored_better_than_the_first() -> None:
    output = trained(with_fisao(iterations=3))
    assert output.counters["answers"] == 32
    assert output.counters["new_answers"] == 64
    assert output.figures["reward_last"] > output.figures["reward_first"]
    assert output.figures["words_last"] > 0


def test_the_first_answers_are_drawn_too_and_are_those_that_the_policy_draws() -> None:
    output = trained(with_fisao(first="drawn", iterations=2))
    assert output.counters["new_answers"] == 64
    assert "answers" not in output.counters, "the rollouts are not learned"
    # Nothing has been learned when they are read, so the ratio to the policy that drew them is 1 at every token.
    assert trained(with_fisao(first="drawn")).figures["clip_share"] < 0.5
    assert trained(with_fisao(first="drawn")).policy != trained().policy


def test_sentences_are_rewarded_on_the_token_that_ends_them() -> None:
    world, config = drawn(), with_fisao(rewards="sentences", first="drawn")
    scored = score_tokens.fn(scorer(), world.images, world.samples, rollouts(), per="sentences")
    measured = split_token_baselines.fn(config.fisao, scored.token_scores)
    rows = lake.read_rows(TokenScore, measured.token_scores)
    texts = {row.rollout_id: row.text for row in lake.read_rows(Rollout, rollouts())}
    assert all(texts[row.rollout_id][row.start : row.end] == row.word for row in rows)
    assert all(row.word.endswith(".") for row in rows[:4])
    reward = WordReward(scorer(), measured.baselines)
    arguments = (policy(), world.images, world.samples, rollouts(), measured.token_scores, reward)
    output = train_fisao.fn(config, *arguments, seed=0)
    assert 0 < output.figures["words_first"] < trained(with_fisao(first="drawn")).figures["words_first"] + 1
    assert output.figures["relative_change"] > 0


def test_the_same_rollouts_give_the_same_checkpoint_and_another_seed_another() -> None:
    config, rows = with_fisao(iterations=2), lake.read_rows(Rollout, rollouts())[:10]
    there = {row.rollout_id for row in rows}
    words = [row for row in lake.read_rows(TokenScore, rewarded().token_scores) if row.rollout_id in there]
    tables = {"answers": lake.publish(Rollout, rows), "words": lake.publish(TokenScore, words)}
    first = trained(config, **tables)
    assert trained(config, **tables) == first
    assert trained(config, seed=1, **tables).policy != first.policy


def test_empty_answers_that_ended_teach_to_end_and_those_cut_at_once_are_counted_and_left_out() -> None:
    rows = lake.read_rows(Rollout, rollouts())
    rows[0] = replace(rows[0], text="", finish_reason="stop")
    rows[1] = replace(rows[1], text="", finish_reason="length")
    words = [
        row for row in lake.read_rows(TokenScore, rewarded().token_scores)
        if row.rollout_id not in (rows[0].rollout_id, rows[1].rollout_id)
    ]  # fmt: skip
    counters = trained(answers=lake.publish(Rollout, rows), words=lake.publish(TokenScore, words)).counters
    assert (counters["answers"], counters["empty_answers"]) == (31, 1)


def test_words_without_any_reward_are_refused() -> None:
    rows = lake.read_rows(TokenScore, rewarded().token_scores)
    flat = lake.publish(TokenScore, [replace(row, reward=0.0) for row in rows])
    with pytest.raises(StageInputError, match=r"none of \d+ object words has a reward.*lower finetune\.fisao\.margin"):
        trained(words=flat)
