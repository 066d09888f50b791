"""GRPO: every question used, every answer rewarded by its own image, groups whole; and it goes on where it was."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tasks.core.models.policy import load_policy
from tasks.core.train import grpo
from tasks.core.train.grpo import Question, Sampling, filled, rewards_of_groups, train_grpo
from tasks.core.train.step_trainer import TrainingRun
from tasks.core.train.weights import FinetuneError, Recipe
from tests.support.paths import DEMO


@pytest.fixture
def questions(pictures, prompts) -> list[Question]:
    return [Question(pictures[i], prompts[i]) for i in range(5)]


def brief(indices, answers) -> list[float]:
    return [-float(len(text.split())) for text in answers]


def fine_tune(policy, questions, work: Path, reward=brief, **options) -> dict[str, float]:
    plain = dict(
        train="full", lr=1e-3, epochs=1.0, batch_size=4, warmup_share=0.1, lora_rank=4, checkpoint_steps=100, seed=3
    )  # fmt: skip
    sampling = Sampling(options.pop("generations", 2), options.pop("temperature", 1.0), 12, options.pop("beta", 0.0))
    on_step = options.pop("on_step", lambda done, loss: None)
    run = TrainingRun(Recipe(**{**plain, **options}), work, on_step)
    return train_grpo(policy, questions, reward, run, sampling)


def weights(policy) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in policy.model.named_parameters()}


@pytest.mark.parametrize(
    ("texts", "rewarded", "expected"),
    [
        (["A.", ""], [0.5, None], [0.5, 0.5]),
        (["A.", " ", "B.", "C."], [0.5, None, -1.0, 2.0], [0.5, -1.0, -1.0, 2.0]),
        (["", "", "", ""], [None] * 4, [0.0] * 4),
        (["A.", "B.", "", "C."], [None, 0.2, None, 0.1], [None, 0.2, 0.1, 0.1]),
        (["A.", ""], [None, None], [None, 0.0]),
    ],
)
def test_silence_is_the_worst_of_its_group_and_what_cant_be_scored_stays_so(texts, rewarded, expected) -> None:
    assert rewards_of_groups(texts, rewarded, len(texts)) == expected
    # A group knows nothing of the others.
    twice = rewards_of_groups([*texts, *["X."] * len(texts)], [*rewarded, *[-9.0] * len(texts)], len(texts))
    assert twice[: len(texts)] == expected


@pytest.mark.parametrize(("count", "groups", "length"), [(5, 2, 6), (4, 2, 4), (1, 3, 3), (7, 1, 7)])
def test_every_question_is_used_and_steps_are_full(count: int, groups: int, length: int) -> None:
    indices = filled(count, groups)
    assert len(indices) == length
    assert set(indices) == set(range(count))


def test_answers_are_rewarded_in_whole_groups_of_their_own_question(
    fresh_policy, questions, tmp_path, monkeypatch
) -> None:
    prompt_of = [
        fresh_policy.inputs([question.image], [question.prompt])["input_ids"][0].tolist() for question in questions
    ]
    requests: list[tuple[int, str]] = []
    inputs: list[dict[str, torch.Tensor]] = []
    check = grpo._check_batch
    monkeypatch.setattr(grpo, "_check_batch", lambda batch: (inputs.append(batch), check(batch)))

    def reward(indices, answers) -> list[float]:
        requests.extend(zip(indices, answers, strict=True))
        return brief(indices, answers)

    facts = fine_tune(fresh_policy, questions, tmp_path, reward)
    assert facts["steps"] == len(inputs) == 3
    assert Counter(index for index, _ in requests) == {0: 4, 1: 2, 2: 2, 3: 2, 4: 2}
    assert all(item == other for (item, _), (other, _) in zip(requests[::2], requests[1::2], strict=True))
    assert len({text for _, text in requests}) > 6, "answers of a group are all the same"
    checked = 0
    for batch in inputs:
        for ids, mask, answer, real, pixels in zip(
            batch["prompt_ids"],
            batch["prompt_mask"].bool(),
            batch["completion_ids"],
            batch["completion_mask"].bool(),
            batch["pixel_values"],
            strict=True,
        ):
            text = fresh_policy.tokenizer.decode(answer[real], skip_special_tokens=True)
            of = [i for i, reply in requests if reply == text and ids[mask].tolist() == prompt_of[i]]
            shown = [fresh_policy.inputs([questions[i].image], ["x"])["pixel_values"][0] for i in of]
            assert any(torch.allclose(pixels, item, atol=1e-5) for item in shown), "another image or prompt"
            checked += 1
    assert checked == 12


@pytest.mark.parametrize("train", ["full", pytest.param("lora", marks=pytest.mark.slow)])
def test_the_policy_learns_what_is_rewarded_and_the_vision_tower_does_not(
    train: str, fresh_policy, questions, tmp_path
) -> None:
    before, side = weights(fresh_policy), fresh_policy.tokenizer.padding_side
    fresh_policy.tokenizer.padding_side = "right"
    facts = fine_tune(
        fresh_policy, questions, tmp_path, train=train, epochs=4.0, lr=3e-3 if train == "lora" else 1e-3, batch_size=8,
        generations=4, beta=0.01,
    )  # fmt: skip
    after = weights(fresh_policy)
    assert after.keys() == before.keys(), "adapters were left in the model"
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert not any("vision" in name for name in changed)
    assert facts["reward_last"] > facts["reward_first"]
    assert facts["kl_last"] > facts["kl_first"] == pytest.approx(0, abs=1e-5)
    assert fresh_policy.tokenizer.padding_side == "right", "the processor is saved with the policy: it is left alone"
    assert "forward" not in vars(fresh_policy.model)
    assert not fresh_policy.model.training
    fresh_policy.tokenizer.padding_side = side


def test_without_a_weight_no_divergence_is_measured(fresh_policy, questions, tmp_path) -> None:
    facts = fine_tune(fresh_policy, questions[:2], tmp_path)
    assert {"reward_first", "reward_last", "length_last", "flat_last"} <= facts.keys()
    assert not {"kl_first", "kl_last"} & facts.keys()


@pytest.mark.parametrize("train", ["full", pytest.param("lora", marks=pytest.mark.slow)])
def test_resumed_training_ends_with_bit_equal_weights_and_the_same_facts(
    train: str, fresh_policy, questions, tmp_path
) -> None:
    options = {"train": train, "checkpoint_steps": 2, "beta": 0.1}
    whole = fine_tune(fresh_policy, questions, tmp_path / "whole", **options)

    def die(done: int, loss: float) -> None:
        if done == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fine_tune(load_policy(DEMO / "policy", digest="demo"), questions, tmp_path / "work", on_step=die, **options)
    steps: list[int] = []
    resumed = load_policy(DEMO / "policy", digest="demo")
    facts = fine_tune(resumed, questions, tmp_path / "work", on_step=lambda done, loss: steps.append(done), **options)
    assert steps == [3]
    assert facts == whole
    there = weights(resumed)
    assert all(torch.equal(tensor, there[name]) for name, tensor in weights(fresh_policy).items())


def test_blank_answers_are_not_put_to_the_reward() -> None:
    scored: list[tuple[int, str]] = []

    def reward(indices, answers) -> list[float]:
        scored.extend(zip(indices, answers, strict=True))
        return [1.0, None]

    reward_of = grpo._reward_function(reward, 2)
    completions = [[{"role": "assistant", "content": text}] for text in ("", "A dog.", "A cat.", " ")]
    assert reward_of(completions=completions, question=[7, 7, 3, 3], images=None) == [1.0, 1.0, None, 0.0]
    assert scored == [(7, "A dog."), (3, "A cat.")]


def test_rewards_that_are_all_equal_teach_nothing_and_that_is_refused(fresh_policy, questions, tmp_path) -> None:
    with pytest.raises(FinetuneError, match="no group of answers had different rewards"):
        fine_tune(fresh_policy, questions[:2], tmp_path, lambda indices, answers: [1.0] * len(answers))


def test_groups_that_do_not_fill_a_batch_are_refused(fresh_policy, questions, tmp_path) -> None:
    with pytest.raises(ValueError, match=r"batch_size 4 is no multiple of finetune\.grpo\.generations 3"):
        fine_tune(fresh_policy, questions, tmp_path, generations=3)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"pixel_values": None}, "no pixel_values, .* the images never reach the model"),
        ({"completion_mask": torch.zeros(2, 5)}, "an answer without a token"),
    ],
)
def test_a_batch_without_pixels_or_answers_is_refused(change, match) -> None:
    with pytest.raises(FinetuneError, match=match):
        grpo._check_batch({"pixel_values": torch.ones(2, 3), "completion_mask": torch.ones(2, 5), **change})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llava", "llava_next", "llava_onevision", "qwen2_vl", "qwen2_5_vl"])
def test_other_architectures_learn_against_a_reference(name: str, questions, tmp_path) -> None:
    from tests.support.tiny_models import tiny

    shared = tiny(name)
    copied = replace(shared, model=copy.deepcopy(shared.model))

    # Their texts are random: only a reward of every character separates two answers.
    def reward(indices, answers) -> list[float]:
        return [float(sum(map(ord, text))) for text in answers]

    facts = fine_tune(copied, questions[:2], tmp_path, reward, train="lora", beta=0.1)
    assert facts["relative_change"] > 0
    assert "kl_last" in facts
