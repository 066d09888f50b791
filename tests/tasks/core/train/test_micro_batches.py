"""The batch is the effective one: read in parts it gives the same loss and gradients, and no logits of all positions."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tasks.core.train import step_trainer
from tasks.core.train.answers import Answer, answer_tokens
from tasks.core.train.dpo import PreferencePair, train_dpo
from tasks.core.train.drawing import Drawn
from tasks.core.train.grpo import Question, Sampling, train_grpo
from tasks.core.train.micro_batches import MicroBatches
from tasks.core.train.ppo import PpoSettings, train_ppo
from tasks.core.train.sft import Example, train_sft
from tasks.core.train.steps import TrainingRun
from tasks.core.train.weights import FinetuneError, Recipe
from tests.support.gradients import first_gradients
from tests.support.sequences import fresh

PROMPT = "Describe the image."
TEXTS = ["There is a dog on the left. Two cats lie by it.", "A man walks.", "She looks up. He waits.", "Who? Yes!"]
PPO = PpoSettings(clip=0.2, kl=0.1, gamma=1.0, gae_lambda=0.95, value_weight=0.5, passes=1, iterations=1)


def run(work: Path, *, recompute: bool | None = None, **options) -> TrainingRun:
    plain = dict(
        train="full", lr=1e-3, epochs=1.0, batch_size=4, warmup_share=0.0, lora_rank=2, checkpoint_steps=99, seed=1
    )
    return TrainingRun(Recipe(**{**plain, **options}), work, lambda done, loss: None, recompute)


def examples(pictures) -> list[Example]:
    return [Example(pictures[i], PROMPT, text) for i, text in enumerate(TEXTS)]


def sft(policy, pictures, how: TrainingRun) -> dict[str, float]:
    return train_sft(policy, examples(pictures), how)


def dpo(policy, pictures, how: TrainingRun) -> dict[str, float]:
    pairs = [PreferencePair(pictures[i], PROMPT, text, TEXTS[i - 1]) for i, text in enumerate(TEXTS)]
    return train_dpo(policy, pairs, how, beta=0.1)


def grpo(policy, pictures, how: TrainingRun) -> dict[str, float]:
    def draw(put, step):
        texts = [TEXTS[:2], TEXTS[2:]]
        return [[Drawn(tuple(policy.answer_ids(t)), t, True) for t in texts[request.question]] for request in put]

    questions = [Question(pictures[i], PROMPT) for i in range(2)]
    return train_grpo(
        policy, questions, lambda indices, texts: [float(len(t)) for t in texts], draw, how, Sampling(2, 1.0, 8, 0.1)
    )


def ppo(policy, pictures, how: TrainingRun) -> dict[str, float]:
    answers = [Answer(pictures[i], PROMPT, answer_tokens(policy, text), {2: 1.0 - i}) for i, text in enumerate(TEXTS)]
    return train_ppo(policy, lambda i: answers, how.recipe, PPO, work=how.work, on_step=lambda share: None)


Method = Callable[..., dict[str, float]]
METHODS = pytest.mark.parametrize("method", [sft, dpo, grpo, ppo])


@METHODS
@pytest.mark.parametrize("name", ["llava_next", "mllama"])
def test_parts_of_any_size_give_the_loss_and_gradients_of_the_whole_batch(
    name: str, method: Method, pictures, tmp_path
) -> None:
    facts: dict[int, dict[str, float]] = {}

    def gradients(micro: int) -> list[torch.Tensor]:
        def train() -> None:
            facts[micro] = method(fresh(name), pictures, run(tmp_path / f"{micro}", micro_batch_size=micro))

        return first_gradients(train)

    whole = gradients(4)
    for micro in (1, 2, 3):
        for part, of_whole in zip(gradients(micro), whole, strict=True):
            assert torch.allclose(part, of_whole, rtol=1e-3, atol=1e-5 * of_whole.abs().max().item() + 1e-7)
        assert facts[micro]["micro_batch_size"] == micro
        if "loss_first" in facts[micro]:
            assert facts[micro]["loss_first"] == pytest.approx(facts[4]["loss_first"], rel=1e-5, abs=1e-6)


def test_the_mean_of_sft_is_over_all_tokens_of_the_batch(pictures, tmp_path) -> None:
    policy = fresh("llava")
    alone = []
    for i, text in enumerate(TEXTS):
        facts = train_sft(fresh("llava"), [Example(pictures[i], PROMPT, text)], run(tmp_path / f"{i}", batch_size=1))
        alone.append((len(answer_tokens(policy, text)), facts["loss_first"]))
    facts = sft(policy, pictures, run(tmp_path / "all", micro_batch_size=1))
    assert facts["loss_first"] == pytest.approx(sum(n * loss for n, loss in alone) / sum(n for n, _ in alone), rel=1e-5)


@pytest.mark.parametrize("train", ["full", "lora"])
@pytest.mark.parametrize("name", ["llava", "qwen2_vl", "mllama"])
def test_recomputed_activations_give_the_same_gradients_and_are_switched_off_again(
    name: str, train: str, pictures, tmp_path
) -> None:
    policy = fresh(name)
    plain = first_gradients(lambda: sft(fresh(name), pictures, run(tmp_path / "plain", train=train)))
    again = first_gradients(lambda: sft(policy, pictures, run(tmp_path / "again", train=train, recompute=True)))
    assert len(plain) == len(again) > 0
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(plain, again, strict=True))
    assert not policy.model.is_activation_checkpointing
    assert not policy.model.get_input_embeddings()._forward_hooks


def without_room(beyond: int, monkeypatch) -> list[int]:
    """Memory for so many answers and no more; the sizes of the parts that were tried."""
    tried: list[int] = []
    read = step_trainer.read_tokens

    def limited(policy, model, inputs, turns, **options):
        tried.append(len(turns))
        if len(turns) > beyond:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return read(policy, model, inputs, turns, **options)

    monkeypatch.setattr(step_trainer, "read_tokens", limited)
    return tried


def test_parts_are_halved_when_memory_runs_out_and_the_step_is_the_same(
    pictures, tmp_path, monkeypatch, caplog
) -> None:
    expected = first_gradients(lambda: sft(fresh("llava"), pictures, run(tmp_path / "roomy", micro_batch_size=1)))
    tried = without_room(1, monkeypatch)
    facts: dict[str, float] = {}
    with caplog.at_level(logging.WARNING):
        halved = first_gradients(lambda: facts.update(sft(fresh("llava"), pictures, run(tmp_path / "narrow"))))
    assert tried == [4, 2, 1, 1, 1, 1]
    assert all(torch.equal(a, b) for a, b in zip(expected, halved, strict=True))
    assert facts["micro_batch_size"] == 1
    assert "a step reads 1 rows at a time from now on" in caplog.text


def test_a_size_that_was_given_is_not_changed_and_one_row_that_does_not_fit_is_an_error(
    pictures, tmp_path, monkeypatch
) -> None:
    without_room(1, monkeypatch)
    with pytest.raises(FinetuneError, match=r"--set finetune\.micro_batch_size=1, or null"):
        sft(fresh("llava"), pictures, run(tmp_path / "given", micro_batch_size=2))
    without_room(0, monkeypatch)
    with pytest.raises(FinetuneError, match="memory ran out with one row at a time"):
        sft(fresh("llava"), pictures, run(tmp_path / "none"))


def test_an_error_that_is_not_of_memory_is_not_tried_again() -> None:
    calls: list[int] = []

    def work() -> None:
        calls.append(1)
        raise RuntimeError("another fault")

    with pytest.raises(RuntimeError, match="another fault"):
        MicroBatches(None, 4).run(work, lambda: None)
    assert len(calls) == 1


@METHODS
@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "mllama", "internvl"])
def test_logits_are_computed_for_the_answers_positions_alone(name: str, method: Method, pictures, tmp_path) -> None:
    policy = fresh(name)
    shapes: list[tuple[int, ...]] = []
    hook = policy.model.get_output_embeddings().register_forward_hook(lambda m, a, out: shapes.append(tuple(out.shape)))
    method(policy, pictures, run(tmp_path, micro_batch_size=2))
    hook.remove()
    longest = max(len(answer_tokens(policy, text)) for text in TEXTS)
    assert max(shape[1] for shape in shapes) == longest + 1
    assert max(shape[0] for shape in shapes) == (4 if method is dpo else 2)
