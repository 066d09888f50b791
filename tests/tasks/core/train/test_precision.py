"""A 16-bit policy learns what a float32 one learns, and a movement that AdamW can't have made is refused."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from benchmarks.precision import METHODS, PROMPT, in_format, measure, pictures
from tasks.core.models.parts import LEAST_COVERED, learnable, learnable_below, lora_targets, towers
from tasks.core.models.value import ValueModel, ValueSpec
from tasks.core.train.movement import expected_movement, linear_rates, refusal
from tasks.core.train.sft import Example, train_sft
from tasks.core.train.steps import TrainingRun
from tasks.core.train.weights import Recipe
from tasks.core.value.fit import ValueFit
from tests.support.tiny_models import ARCHITECTURES, MORE_ARCHITECTURES, tiny


@pytest.mark.long
@pytest.mark.parametrize("method", METHODS)
def test_the_update_of_a_bfloat16_policy_is_that_of_a_float32_one(method: str) -> None:
    for row in measure([method], formats=["bfloat16"]):
        assert row["float32"] == pytest.approx(1, abs=0.01) and row["autocast"] > 0.9, row


@pytest.mark.slow
def test_the_update_of_a_float16_policy_is_that_of_a_float32_one() -> None:
    for row in measure(["sft", "value"], formats=["float16"]):
        assert row["float32"] == pytest.approx(1, abs=0.01) and row["autocast"] > 0.9, row


@pytest.mark.parametrize(
    ("save_dtype", "saved"), [("auto", torch.float32), ("policy", torch.bfloat16), ("float32", torch.float32)]
)
def test_an_update_that_rounding_would_erase_is_saved_in_float32(
    save_dtype: str, saved: torch.dtype, tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    images, texts = pictures()
    policy = in_format(torch.bfloat16, torch.bfloat16)
    recipe = Recipe("full", 1e-6, 1.0, 4, 0.0, 4, 1000, 0, save_dtype=save_dtype)
    examples = [Example(image, PROMPT, text) for image, text in zip(images[:4], texts[:4], strict=True)]
    facts = train_sft(policy, examples, TrainingRun(recipe, tmp_path, lambda done, loss: None))
    assert 0 < facts["surviving_share"] < 0.5
    assert {parameter.dtype for parameter in policy.model.parameters()} == {saved}
    assert facts["saved_in_float32"] == (saved == torch.float32)


def test_what_follows_v_is_float32_whatever_the_policy_is() -> None:
    value = ValueModel(in_format(torch.bfloat16, torch.bfloat16), ValueSpec("demo", "lora", -1, "sentence"))
    fit = ValueFit(
        value=lambda pairs: torch.zeros(len(pairs)), parameters=value.parameters(), gamma=0.9, mode="mean_to_go",
        lr=1e-5, target_decay=0.95,
    )  # fmt: skip
    assert {p.dtype for p in fit.parameters.values()} == {t.dtype for t in fit.target.values()} == {torch.float32}
    with torch.no_grad():
        for parameter in fit.parameters.values():
            parameter.add_(1e-5)
    for _ in range(200):
        for name, target in fit.target.items():
            target.lerp_(fit.parameters[name].detach(), 1 - fit.target_decay)
    gaps = [float((fit.target[name] - p.detach()).abs().max()) for name, p in fit.parameters.items()]
    assert max(gaps) < 1e-6, "the target network stands still"


def test_movement_that_the_steps_cannot_have_made_is_refused() -> None:
    rates = linear_rates(1e-6, 16, 0)
    expected = expected_movement(rates)
    assert len(rates) == 16 and rates[0] == 1e-6 and rates[-1] == pytest.approx(1e-6 / 16)
    for plausible in (sum(rates), 0.3 * math.hypot(*rates)):
        assert refusal(plausible, expected, 0.05, "16 steps") is None
    # float16 at 1e-3 went 52 times the weights' norm; bfloat16 at 1e-6 made .006 of its update.
    for wrong in (52 * 0.05, 0.006 * math.hypot(*rates)):
        message = refusal(wrong, expected, 0.05, "16 steps at finetune.lr (1e-06)")
        assert message and "16 steps at finetune.lr (1e-06)" in message and "\n" not in message


@pytest.mark.parametrize("name", ARCHITECTURES + MORE_ARCHITECTURES)
def test_no_tensor_of_a_tower_learns_and_adapters_reach_the_language_model(name: str) -> None:
    model = tiny(name).model
    inside = {id(parameter) for tower in towers(model).values() for parameter in tower.parameters()}
    assert inside, "no tower"
    named = ("visual.", "vision_tower.", "vision_model.", "vision_encoder.")
    # By the names that the architectures of transformers give their towers, which the code does not look at.
    expected = {id(p) for n, p in model.named_parameters() if any(f".{part}" in f".{n}" for part in named)}
    assert expected <= inside
    assert not inside & {id(parameter) for parameter in learnable(model).values()}
    assert not inside & {id(parameter) for parameter in learnable_below(model, -1).values()}
    targets = lora_targets(model)
    assert not targets.lack and targets.share >= LEAST_COVERED, targets.lack
