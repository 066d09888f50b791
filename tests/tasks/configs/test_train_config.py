"""Fine-tuning's settings: a method has its own and the shared ones, and no other method's."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from pydantic import TypeAdapter, ValidationError

from tasks.configs.train import DpoConfig, DpoSettings, FinetuneConfig, GrpoConfig, SftConfig, switch_method

ANY_METHOD: TypeAdapter[FinetuneConfig] = TypeAdapter(FinetuneConfig)


@pytest.mark.parametrize("settings", [{}, {"lr": 1e-3}, {"replay": {"share": 0.2}}])
def test_a_mapping_without_a_method_is_supervised_in_the_run_form_too(settings: dict[str, Any]) -> None:
    assert ANY_METHOD.validate_python(settings) == SftConfig(**settings)
    jsonschema.validate(settings, ANY_METHOD.json_schema())


@pytest.mark.parametrize("settings", [{"dpo": {}}, {"method": "dpo", "replay": {}}, {"method": "grpo", "dpo": {}}])
def test_the_settings_of_another_method_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="not permitted"):
        ANY_METHOD.validate_python(settings)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(settings, ANY_METHOD.json_schema())


def test_a_step_of_grpo_holds_whole_groups() -> None:
    with pytest.raises(ValidationError, match="set batch_size to a multiple of 3"):
        GrpoConfig(batch_size=8, grpo={"generations": 3})
    assert SftConfig(batch_size=7).batch_size == 7


def test_verdicts_need_bounds_in_order_and_at_least_one_source() -> None:
    wrong = {"kind": "plugin", "name": "mine", "true_from": 0.1, "hallucinated_below": 0.2}
    with pytest.raises(ValidationError, match=r"hallucinated_below is 0\.2 and true_from 0\.1"):
        ANY_METHOD.validate_python({"method": "sentinel", "sentinel": {"verdicts": [wrong]}})
    with pytest.raises(ValidationError, match="at least 1 item"):
        ANY_METHOD.validate_python({"method": "sentinel", "sentinel": {"verdicts": []}})


def test_switching_the_method_keeps_what_all_share_and_takes_the_defaults_of_the_new_one() -> None:
    dpo = DpoConfig(train="full", lr=1e-3, dpo=DpoSettings(beta=0.5))
    assert switch_method(dpo, SftConfig) == SftConfig(train="full", lr=1e-3)
    assert switch_method(dpo, SftConfig, lr=1e-4, replay={"share": 0.1}).lr == 1e-4
    assert switch_method(dpo, DpoConfig) == dpo, "the same method lost its own settings"
