"""Tune by rewards: new answers to the samples' prompts, judged as the run's rewards are, or by a value model."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from storage import checkpoints, lake
from storage.artifacts import StageOutput
from storage.schema import Reward, Rollout
from tasks.configs.train import GrpoConfig, GrpoSettings, switch_method
from tasks.core.models.policy import load_policy
from tasks.core.train.grpo import Question
from tasks.models.answer_values import SaidAnswer, mean_values, sentence_values
from tasks.models.loading import load_images
from tasks.stage.stage import StageInputError
from tasks.train import grpo as stage
from tasks.train.grpo import train_grpo
from tests.support.small_world import (
    FINETUNE,
    drawn,
    policy,
    rollouts,
    samples,
    scorer,
    shaped,
    trained,
)

GRPO = GrpoSettings(generations=2, max_new_tokens=16)
CONFIG = switch_method(FINETUNE, GrpoConfig, grpo=GRPO, epochs=0.5)


def tuned(grpo: GrpoSettings = GRPO, given: dict[str, object] | None = None, **changes: object) -> StageOutput:
    world = drawn()
    return train_grpo.fn(
        CONFIG.model_copy(update={"grpo": grpo, **changes}), policy(), world.images, world.samples,
        scorer(), tau=shaped().margin, shaping="margin", alpha=1.0, seed=0, **(given or {}),
    )  # fmt: skip


def questions() -> list[Question]:
    pictures = load_images(drawn().images, [one.image_id for one in samples()])
    return [Question(pictures[one.image_id], one.prompt) for one in samples()]


def test_a_whole_checkpoint_comes_out_and_every_answer_was_scored() -> None:
    output = tuned()
    folder = checkpoints.folder(output.policy)
    assert {path.name for path in folder.iterdir()} >= {"config.json", "model.safetensors", "chat_template.jinja"}
    before, after = (load_policy(checkpoints.folder(ref), digest="") for ref in (policy(), output.policy))
    assert before.processor.chat_template == after.processor.chat_template
    assert before.tokenizer.padding_side == after.tokenizer.padding_side
    assert before.model.generation_config.max_new_tokens == after.model.generation_config.max_new_tokens
    assert output.facts["relative_change"] > 0
    assert output.facts["steps"] == 2
    assert output.counters.answers == 2 * CONFIG.batch_size
    assert (output.counters["unscored"], output.counters["asked_twice"]) == (0, 0)
    assert tuned().policy == output.policy, "the same call gives another policy"


def test_the_reward_is_the_mean_shaped_reward_that_the_runs_answers_got() -> None:
    rewards: dict[str, list[float]] = {}
    for row in lake.read_rows(Reward, shaped().rewards):
        rewards.setdefault(row.rollout_id, []).append(row.shaped)
    at = {one.sample_id: index for index, one in enumerate(samples())}
    said = [one for one in lake.read_rows(Rollout, rollouts()) if one.rollout_id in rewards]
    counters: Counter[str] = Counter()
    # The configuration's own defaults shaped them.
    reward = stage._scored(scorer(), questions(), shaped().margin, "margin", 1.0, RUNTIME, counters)
    given = reward([at[one.sample_id] for one in said], [one.text for one in said])
    assert given == pytest.approx([float(np.mean(rewards[one.rollout_id])) for one in said], abs=1e-4)
    assert counters.answers == len(said)


def test_a_value_model_rewards_by_its_mean_over_the_sentences() -> None:
    value = trained().value
    reward = stage._valued(value, policy(), questions(), MODEL, RUNTIME, Counter())
    read = sentence_values(value, policy(), MODEL, RUNTIME)
    texts = ["There is a dog. There is a cat.", "I can see a pizza."]
    expected = mean_values(
        read,
        [
            SaidAnswer(questions()[at].image, questions()[at].prompt, text)
            for at, text in zip((3, 1), texts, strict=True)
        ],
    )
    assert reward([3, 1], texts) == pytest.approx(expected, abs=1e-5)
    output = tuned(GRPO.model_copy(update={"reward": "value"}), {"value": value, "backbone": policy()}, epochs=0.25)
    assert output.facts["reward_first"] != tuned(epochs=0.25).facts["reward_first"]


def test_values_need_a_value_model() -> None:
    with pytest.raises(StageInputError, match=r"give train_grpo value and backbone, .* finetune\.grpo\.reward=score"):
        tuned(GRPO.model_copy(update={"reward": "value"}))


def test_groups_that_do_not_fill_a_batch_are_refused_with_a_batch_that_does() -> None:
    with pytest.raises(StageInputError, match=r"--set finetune\.batch_size=9"):
        tuned(GRPO.model_copy(update={"generations": 3}))
