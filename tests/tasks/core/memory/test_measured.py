"""The formulas' parts against what models hold: caches, adapters, what learns; and one whole peak."""

from __future__ import annotations

import pytest
from PIL import Image

from benchmarks.memory import Case, measure
from tasks.core.engine.decoder import Decoder
from tasks.core.memory.training import adapter_parameters
from tasks.core.models.parts import learnable
from tasks.core.train.weights import adapters
from tasks.models.architectures import facts_of_config
from tests.support.tiny_models import build, tiny

MODELS = ["llava", "llava_next", "qwen2_5_vl", "qwen3_vl", "smolvlm", "mllama"]


@pytest.mark.parametrize("name", MODELS)
def test_a_prefix_holds_the_bytes_of_the_formula(name: str) -> None:
    policy = tiny(name)
    language = facts_of_config(name, "tiny", policy.model.config.to_dict(), {}).arch.language
    (prompt,) = Decoder(policy).start([Image.new("RGB", (40, 40))], ["A cat."])
    held = sum(slab.numel() * slab.element_size() for slab in prompt.prefix.kv)
    assert held == prompt.prefix.length * language.kv_bytes(4)


@pytest.mark.parametrize("name", MODELS)
def test_what_learns_and_the_adapters_are_counted_as_training_makes_them(name: str) -> None:
    from peft import get_peft_model

    model, _ = build(name)
    arch = facts_of_config(name, "tiny", model.config.to_dict(), {}).arch
    assert arch.parameters.total == sum(parameter.numel() for parameter in model.parameters())
    assert arch.parameters.learning == sum(parameter.numel() for parameter in learnable(model).values())
    wrapped = get_peft_model(model, adapters(model, 4))
    learned = sum(parameter.numel() for parameter in wrapped.parameters() if parameter.requires_grad)
    assert adapter_parameters(arch, 4) == learned


@pytest.mark.slow
def test_a_measured_peak_is_near_the_computed_one() -> None:
    outcome = measure(Case("states", images=4, side=448), "cpu")
    assert 0.6 < outcome.ratio < 1.6
