"""Fine-tuning learns the answer and its end, under the very prompt that inference uses; and it goes on where it was."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from tasks.core.train import sft
from tasks.core.train.sft import Example, train_sft
from tasks.core.train.steps import TrainingRun
from tasks.core.train.weights import FinetuneError, Recipe, steps_of

ANSWERS = [
    "There is a dog. There is a cat.",
    "I can see a pizza.",
    "There is a dining table and a cup. I can see a car. There is a book.",
    "There is a wine glass.",
    "There is a cake. There is an umbrella.",
]


@pytest.fixture
def examples(pictures, prompts) -> list[Example]:
    return [Example(pictures[i], prompts[i], answer) for i, answer in enumerate(ANSWERS)]


def fine_tune(policy, examples, work: Path, **options) -> dict[str, float]:
    plain = dict(
        train="full", lr=1e-3, epochs=2.0, batch_size=2, warmup_share=0.1, lora_rank=4, checkpoint_steps=100, seed=3
    )  # fmt: skip
    on_step = options.pop("on_step", lambda done, loss: None)
    return train_sft(policy, examples, TrainingRun(Recipe(**{**plain, **options}), work, on_step))


def weights(policy) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in policy.model.named_parameters()}


def test_the_loss_is_that_of_the_answer_and_its_end(fresh_policy, examples, tmp_path) -> None:
    example = examples[2]
    inputs = fresh_policy.inputs([example.image], [example.prompt])
    (end,) = fresh_policy.end_ids
    answer = [*fresh_policy.tokenizer(example.answer, add_special_tokens=False).input_ids, end]
    ids = torch.cat([inputs["input_ids"], torch.tensor([answer])], dim=1)
    with torch.inference_mode():
        logits = fresh_policy.model(input_ids=ids, pixel_values=inputs["pixel_values"]).logits[0]
    expected = torch.nn.functional.cross_entropy(logits[-len(answer) - 1 : -1], torch.tensor(answer)).item()
    facts = fine_tune(fresh_policy, [example], tmp_path, epochs=1.0, batch_size=1)
    assert facts["loss_first"] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("train", ["full", "lora"])
def test_weights_change_and_the_vision_tower_does_not(train: str, fresh_policy, examples, tmp_path) -> None:
    before = weights(fresh_policy)
    facts = fine_tune(fresh_policy, examples, tmp_path, train=train, epochs=8.0)
    after = weights(fresh_policy)
    assert after.keys() == before.keys(), "adapters were left in the model"
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert not any("vision" in name for name in changed)
    assert all(".layers." in name for name in changed) == (train == "lora")
    assert facts["relative_change"] > 1e-4
    assert facts["steps"] == steps_of(len(examples), 2, 8.0) == 24
    assert facts["loss_last"] < facts["loss_first"]
    assert not fresh_policy.model.training
    assert not any(p.requires_grad for p in fresh_policy.model.parameters())


def test_merged_adapters_give_the_logits_from_before_merging(fresh_policy, examples, tmp_path, monkeypatch) -> None:
    from tasks.core.train import step_trainer

    inputs = fresh_policy.inputs([example.image for example in examples], [example.prompt for example in examples])
    before = {}
    settle = step_trainer.settle

    def watched(model, *arguments):
        model.eval()
        with torch.inference_mode():
            before["logits"] = model(**inputs).logits
        return settle(model, *arguments)

    monkeypatch.setattr(step_trainer, "settle", watched)
    fine_tune(fresh_policy, examples, tmp_path, train="lora", epochs=4.0)
    with torch.inference_mode():
        assert torch.allclose(fresh_policy.model(**inputs).logits, before["logits"], atol=1e-4)


@pytest.mark.parametrize("train", ["full", "lora"])
def test_resumed_training_ends_with_bit_equal_weights_and_the_same_facts(
    train: str, fresh_policy, examples, tmp_path
) -> None:
    from tasks.core.models.policy import load_policy
    from tests.support.paths import DEMO

    options = {"train": train, "checkpoint_steps": 2}
    whole = fine_tune(fresh_policy, examples, tmp_path / "whole", **options)

    def die(done: int, loss: float) -> None:
        if done == 5:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fine_tune(load_policy(DEMO / "policy", digest="demo"), examples, tmp_path / "work", on_step=die, **options)
    assert [path.name for path in (tmp_path / "work").glob("checkpoint-*")] == ["checkpoint-4"]
    # As left by a kill while the next one was written.
    shutil.copytree(tmp_path / "work" / "checkpoint-4", tmp_path / "work" / "checkpoint-6")
    (tmp_path / "work" / "checkpoint-6" / "trainer_state.json").write_text('{"epoch": 1.')
    (tmp_path / "work" / "checkpoint-6" / "optimizer.pt").unlink()

    steps: list[int] = []
    resumed = load_policy(DEMO / "policy", digest="demo")
    facts = fine_tune(resumed, examples, tmp_path / "work", on_step=lambda done, loss: steps.append(done), **options)
    assert steps == [5, 6]
    assert facts == whole
    there = weights(resumed)
    assert all(torch.equal(tensor, there[name]) for name, tensor in weights(fresh_policy).items())


def test_training_killed_after_its_last_step_has_nothing_left_to_do(fresh_policy, examples, tmp_path) -> None:
    from tasks.core.models.policy import load_policy
    from tests.support.paths import DEMO

    whole = fine_tune(fresh_policy, examples, tmp_path, checkpoint_steps=3)
    assert (tmp_path / "checkpoint-6").is_dir()
    again = load_policy(DEMO / "policy", digest="demo")
    assert fine_tune(again, examples, tmp_path, checkpoint_steps=3) == whole
    there = weights(again)
    assert all(torch.equal(tensor, there[name]) for name, tensor in weights(fresh_policy).items())


def test_the_order_of_examples_follows_the_seed(fresh_policy, examples, tmp_path, monkeypatch) -> None:
    seen: list[int] = []
    row = sft.caption_row

    def watched(policy, item, example):
        seen.append(item)
        return row(policy, item, example)

    monkeypatch.setattr(sft, "caption_row", watched)

    def order(seed: int) -> tuple[int, ...]:
        seen.clear()
        fine_tune(fresh_policy, examples, tmp_path / f"{len(list(tmp_path.iterdir()))}", seed=seed, epochs=1.0)
        return tuple(seen)

    assert order(0) == order(0)
    assert sorted(order(0)) == sorted(order(1)) == list(range(len(examples)))
    assert len({order(seed) for seed in (0, 1, 2)}) > 1


def test_weights_that_stay_as_they_are_are_refused(fresh_policy, examples, tmp_path) -> None:
    with pytest.raises(FinetuneError, match=r"left every weight as it was; check finetune\.lr"):
        fine_tune(fresh_policy, examples, tmp_path, lr=0.0, epochs=1.0)


def test_training_that_diverges_is_refused_and_names_the_setting(fresh_policy, examples, tmp_path) -> None:
    with pytest.raises(FinetuneError, match=r"diverged: .* lower finetune\.lr \(1e\+38\)"):
        fine_tune(fresh_policy, examples, tmp_path, lr=1e38, epochs=1.0)


@pytest.mark.parametrize(
    ("count", "batch", "epochs", "steps"), [(5, 2, 2.0, 6), (4, 2, 1.0, 2), (1, 32, 1.0, 1), (10, 4, 0.5, 2)]
)
def test_steps_are_counted_as_the_trainer_does(count: int, batch: int, epochs: float, steps: int) -> None:
    assert steps_of(count, batch, epochs) == steps
