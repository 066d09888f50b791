"""Rows that can't be read are left out and counted; beside its weights a trained policy is as it came."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from PIL import Image

from tasks.core.train.dpo import PreferencePair, train_dpo
from tasks.core.train.drawing import Drawn
from tasks.core.train.grpo import Question, Sampling, train_grpo
from tasks.core.train.sft import Example, train_sft
from tasks.core.train.steps import TrainingRun
from tasks.core.train.weights import FinetuneError, Recipe
from tests.support.gradients import first_gradients
from tests.support.sequences import fresh

PROMPT, THIN = "Describe the image.", Image.new("RGB", (900, 3))  # thinner than Qwen's processor takes


def run(work: Path, **options) -> TrainingRun:
    plain = dict(
        train="full", lr=1e-3, epochs=2.0, batch_size=2, warmup_share=0.0, lora_rank=2, checkpoint_steps=1, seed=1
    )
    return TrainingRun(Recipe(**{**plain, **options}), work, lambda done, loss: None)


def test_an_example_that_the_processor_refuses_is_left_out_and_counted_once(pictures, tmp_path) -> None:
    good = [Example(pictures[i], PROMPT, "There is a dog.") for i in range(3)]
    facts = train_sft(fresh("qwen2_vl"), [*good, Example(THIN, PROMPT, "A cat.")], run(tmp_path))
    assert facts["untrainable"] == 1
    assert facts["steps"] == 4


@pytest.mark.parametrize("micro", [1, 4])
def test_the_step_is_that_of_the_other_examples(micro: int, pictures, tmp_path) -> None:
    good = [Example(pictures[i], PROMPT, "There is a dog. A man walks."[: 15 * (i + 1)]) for i in range(2)]
    bad = Example(THIN, PROMPT, "She looks up. He waits.")
    options = {"batch_size": 4, "epochs": 1.0, "micro_batch_size": micro}
    alone = first_gradients(lambda: train_sft(fresh("qwen2_vl"), good, run(tmp_path / "alone", **options)))
    mixed = first_gradients(lambda: train_sft(fresh("qwen2_vl"), [*good, bad], run(tmp_path / "mixed", **options)))
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-6) for a, b in zip(alone, mixed, strict=True))


def test_nothing_that_can_be_read_is_an_error_with_the_reason(tmp_path) -> None:
    with pytest.raises(FinetuneError, match=r"none of 2 examples can be trained on: .+; check images and prompts"):
        train_sft(fresh("qwen2_vl"), [Example(THIN, PROMPT, "A cat.")] * 2, run(tmp_path))


def test_pairs_and_questions_that_cant_be_read_are_left_out_too(pictures, tmp_path) -> None:
    pairs = [PreferencePair(image, PROMPT, "There is a dog.", "A man walks.") for image in (*pictures[:2], THIN)]
    assert train_dpo(fresh("qwen2_vl"), pairs, run(tmp_path / "dpo"), beta=0.1)["untrainable"] == 1
    policy = fresh("qwen2_vl")

    def draw(put, step):
        policy.inputs([questions[request.question].image for request in put], [PROMPT] * len(put))
        texts = ["There is a dog.", "She looks up. He waits."]
        return [[Drawn(tuple(policy.answer_ids(text)), text, True) for text in texts] for _ in put]

    questions = [Question(image, PROMPT) for image in (pictures[0], THIN)]
    facts = train_grpo(
        policy, questions, lambda indices, texts: [float(len(text)) for text in texts], draw,
        run(tmp_path / "grpo", batch_size=4), Sampling(2, 1.0, 8, 0.1),
    )  # fmt: skip
    assert facts["untrainable"] == 1


@pytest.mark.parametrize("train", ["full", "lora"])
@pytest.mark.parametrize("name", ["llava", "qwen3_vl_moe", "mllama"])
def test_settings_forward_and_mode_are_as_they_were(name: str, train: str, pictures, tmp_path) -> None:
    policy = fresh(name)
    config = policy.model.config
    for each in (config, config.get_text_config()):
        each.use_cache = True
        if hasattr(each, "output_router_logits"):
            each.output_router_logits = False
    policy.model.generation_config.pad_token_id = None
    policy.tokenizer.padding_side = "right"
    before = copy.deepcopy((config.to_dict(), policy.model.generation_config.to_dict()))
    names = [name for name, _ in policy.model.named_parameters()]
    how = TrainingRun(run(tmp_path, train=train, epochs=1.0).recipe, tmp_path, lambda done, loss: None, recompute=True)
    train_sft(policy, [Example(pictures[0], PROMPT, "There is a dog.")], how)
    assert (policy.model.config.to_dict(), policy.model.generation_config.to_dict()) == before
    assert policy.tokenizer.padding_side == "right"
    assert "forward" not in vars(policy.model)
    assert not policy.model.training
    assert [name for name, _ in policy.model.named_parameters()] == names, "adapters were left in the model"
    assert not any(parameter.requires_grad for parameter in policy.model.parameters())
    assert not policy.model.get_input_embeddings()._forward_hooks
