"""Every layer that adapters are meant for gets one, in models whose experts share a tensor too."""

from __future__ import annotations

import pytest

from tasks.core.models.parts import lora_targets
from tasks.core.models.precision import adapter_config, merged
from tests.support.tiny_models import build


@pytest.mark.parametrize("name", ["glm4v_moe", "qwen3_vl_moe", "qwen3_5_moe", "ernie4_5_vl_moe", "aria", "lfm2_vl"])
def test_every_target_gets_an_adapter(name: str) -> None:
    from peft import get_peft_model

    model, _ = build(name)
    targets = lora_targets(model)
    adapted = {weight for weight, _, _ in merged(get_peft_model(model, adapter_config(targets, 4)))}
    assert adapted == {f"{module}.weight" for module in targets.modules} | set(targets.parameters)
