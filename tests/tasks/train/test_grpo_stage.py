"""Training by rewards: new answers to the samples' prompts, judged as the run's rewards are, or by a value model."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from storage import checkpoints, lake
from storage.schema import Reward, Rollout
from tasks.configs.train import GrpoConfig, GrpoSettings, switch_method
from tasks.core.models.policy import load_policy
from tasks.core.train.grpo import Question
from tasks.models.answer_values import PromptedAnswer, mean_values, sentence_values
from tasks.models.handles import ValueHandle
from tasks.models.loading import load_images
from tasks.stage.quarantine import StageInputError
from tasks.train import grpo as stage
from tasks.train.grpo import ShapedReward, train_grpo
from tasks.train.training import TrainResult
from tests.support.small_world import FINETUNE, drawn, policy, rollouts, samples, scorer, shaped, value

GRPO = GrpoSettings(generations=2, max_new_tokens=16)
CONFIG = switch_method(FINETUNE, GrpoConfig, grpo=GRPO, epochs=0.5)


def reward_rule() -> ShapedReward:
    """The configuration's own defaults, which shaped the run's rewards."""
    return ShapedReward(scorer(), shaped().margin, "margin", 1.0)


def trained(grpo: GrpoSettings = GRPO, value: ValueHandle | None = None, **changes: object) -> TrainResult:
    config, world = CONFIG.model_copy(update={"grpo": grpo, **changes}), drawn()
    return train_grpo.fn(config, policy(), world.images, world.samples, reward_rule(), value, seed=0)


def questions() -> list[Question]:
    pictures = load_images(drawn().images, [sample.image_id for sample in samples()])
    return [Question(pictures[sample.image_id], sample.prompt) for sample in samples()]


def test_a_whole_checkpoint_comes_out_and_every_answer_was_scored() -> None:
    output = trained()
    folder = checkpoints.folder(output.policy)
    assert {path.name for path in folder.iterdir()} >= {"config.json", "model.safetensors", "chat_template.jinja"}
    before, after = (load_policy(checkpoints.folder(ref), digest="") for ref in (policy().checkpoint, output.policy))
    assert before.processor.chat_template == after.processor.chat_template
    assert before.tokenizer.padding_side == after.tokenizer.padding_side
    assert before.model.generation_config.max_new_tokens == after.model.generation_config.max_new_tokens
    assert output.figures["relative_change"] > 0
    assert output.figures["steps"] == 2
    assert output.counters["answers"] == 2 * CONFIG.batch_size
    assert (output.counters["unscored"], output.counters["asked_twice"]) == (0, 0)
    assert trained().policy == output.policy, "the same call gives another policy"


def test_the_reward_is_the_mean_shaped_reward_that_the_runs_answers_got() -> None:
    rewards: dict[str, list[float]] = {}
    for row in lake.read_rows(Reward, shaped().rewards):
        rewards.setdefault(row.rollout_id, []).append(row.shaped)
    at = {sample.sample_id: index for index, sample in enumerate(samples())}
    answers = [answer for answer in lake.read_rows(Rollout, rollouts()) if answer.rollout_id in rewards]
    counters: Counter[str] = Counter()
    reward = stage._scored(reward_rule(), questions(), counters)
    given = reward([at[answer.sample_id] for answer in answers], [answer.text for answer in answers])
    assert given == pytest.approx([float(np.mean(rewards[answer.rollout_id])) for answer in answers], abs=1e-4)
    assert counters["answers"] == len(answers)


def test_a_value_model_rewards_by_its_mean_over_the_sentences() -> None:
    reward = stage._valued(value(), questions(), Counter())
    read = sentence_values(value())
    texts = ["There is a dog. There is a cat.", "I can see a pizza."]
    expected = mean_values(
        read,
        [
            PromptedAnswer(questions()[at].image, questions()[at].prompt, text)
            for at, text in zip((3, 1), texts, strict=True)
        ],
    )
    assert reward([3, 1], texts) == pytest.approx(expected, abs=1e-5)
    output = trained(GRPO.model_copy(update={"reward": "value"}), value(), epochs=0.25)
    assert output.figures["reward_first"] != trained(epochs=0.25).figures["reward_first"]


def test_values_need_a_value_model() -> None:
    with pytest.raises(StageInputError, match=r"give train_grpo a value model, .* finetune\.grpo\.reward=score"):
        trained(GRPO.model_copy(update={"reward": "value"}))


def test_groups_that_do_not_fill_a_batch_are_refused_with_a_batch_that_does() -> None:
    with pytest.raises(StageInputError, match=r"--set finetune\.batch_size=9"):
        trained(GRPO.model_copy(update={"generations": 3}))
