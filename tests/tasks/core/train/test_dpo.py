"""DPO learns from whole answers about images it sees, against the policy as it came; and it goes on where it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tasks.core.models.policy import load_policy
from tasks.core.train.dpo import PreferencePair, train_dpo
from tasks.core.train.steps import TrainingRun
from tasks.core.train.weights import FinetuneError, Recipe
from tests.support.paths import DEMO

ANSWERS = [
    ("There is a dog. There is a cat.", "I can see a pizza."),
    ("I can see a pizza.", "There is a dining table and a cup. I can see a car. There is a book."),
    ("There is a wine glass.", "There is a cake. There is an umbrella."),
]


@pytest.fixture
def pairs(pictures, prompts) -> list[PreferencePair]:
    return [PreferencePair(pictures[i], prompts[i], *two) for i, two in enumerate(ANSWERS)]


def fine_tune(policy, pairs, work: Path, **options) -> dict[str, float]:
    plain = dict(
        train="full", lr=3e-4, epochs=2.0, batch_size=2, warmup_share=0.1, lora_rank=4, checkpoint_steps=100, seed=3
    )  # fmt: skip
    on_step, beta = options.pop("on_step", lambda done, loss: None), options.pop("beta", 0.1)
    return train_dpo(policy, pairs, TrainingRun(Recipe(**{**plain, **options}), work, on_step), beta=beta)


def weights(policy) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in policy.model.named_parameters()}


def log_probability(policy, pair: PreferencePair, answer: str) -> float:
    """Of the answer's tokens and its end, by a forward of our own."""
    inputs = policy.inputs([pair.image], [pair.prompt])
    (end,) = policy.end_ids
    tokens = torch.tensor([*policy.tokenizer(answer, add_special_tokens=False).input_ids, end])
    ids = torch.cat([inputs["input_ids"], tokens[None]], dim=1)
    with torch.inference_mode():
        logits = policy.model(input_ids=ids, pixel_values=inputs["pixel_values"]).logits[0, -len(tokens) - 1 : -1]
    return -torch.nn.functional.cross_entropy(logits, tokens, reduction="sum").item()


def test_log_probabilities_are_those_of_the_whole_answers(fresh_policy, pairs, tmp_path) -> None:
    pair = pairs[1]
    expected = [log_probability(fresh_policy, pair, answer) for answer in (pair.chosen, pair.rejected)]
    facts = fine_tune(fresh_policy, [pair], tmp_path, epochs=1.0, batch_size=1)
    assert [facts["chosen_first"], facts["rejected_first"]] == pytest.approx(expected, rel=1e-3)
    assert facts["loss_first"] == pytest.approx(0.6931, abs=1e-4)  # log 2: the policy is still its own reference
    assert facts["margin_first"] == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("train", ["full", "lora"])
def test_the_policy_moves_towards_the_chosen_answers_and_the_vision_tower_does_not(
    train: str, policy, fresh_policy, pairs, tmp_path
) -> None:
    before = weights(fresh_policy)
    facts = fine_tune(fresh_policy, pairs, tmp_path, train=train, epochs=6.0, lr=1e-3)
    after = weights(fresh_policy)
    assert after.keys() == before.keys(), "adapters were left in the model"
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert not any("vision" in name for name in changed)
    assert all(".layers." in name for name in changed) == (train == "lora")
    assert facts["steps"] == 12
    assert facts["margin_last"] > facts["margin_first"] + 0.05
    assert facts["accuracy_last"] == 1
    for pair in pairs:
        now, then = (
            log_probability(model, pair, pair.chosen) - log_probability(model, pair, pair.rejected)
            for model in (fresh_policy, policy)
        )
        assert now > then
    assert "forward" not in vars(fresh_policy.model), "the trainer's forward was left on the model"
    assert not fresh_policy.model.training


@pytest.mark.parametrize("train", ["full", pytest.param("lora", marks=pytest.mark.slow)])
def test_resumed_training_ends_with_bit_equal_weights_and_the_same_facts(
    train: str, fresh_policy, pairs, tmp_path
) -> None:
    options = {"train": train, "checkpoint_steps": 2}
    whole = fine_tune(fresh_policy, pairs, tmp_path / "whole", **options)

    def die(done: int, loss: float) -> None:
        if done == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fine_tune(load_policy(DEMO / "policy", digest="demo"), pairs, tmp_path / "work", on_step=die, **options)
    steps: list[int] = []
    resumed = load_policy(DEMO / "policy", digest="demo")
    facts = fine_tune(resumed, pairs, tmp_path / "work", on_step=lambda done, loss: steps.append(done), **options)
    assert steps == [3, 4]
    assert facts == whole  # had the half-trained policy become the reference, margins would differ
    there = weights(resumed)
    assert all(torch.equal(tensor, there[name]) for name, tensor in weights(fresh_policy).items())


def test_weights_that_stay_as_they_are_are_refused(fresh_policy, pairs, tmp_path) -> None:
    with pytest.raises(FinetuneError, match=r"left every weight as it was; check finetune\.lr"):
        fine_tune(fresh_policy, pairs[:1], tmp_path, lr=0.0, epochs=1.0)
