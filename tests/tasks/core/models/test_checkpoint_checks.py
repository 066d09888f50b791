"""A checkpoint that can't be used is refused in a line that names what is wrong and what to do."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tasks.core.models.checkpoint_checks import UNSUPPORTED, check_folder
from tasks.core.models.policy import PolicyError, load_policy
from tests.support.paths import DEMO
from tests.support.tiny_models import ARCHITECTURES, tiny

Tensors = dict[str, torch.Tensor]


def demo_with(folder: Path, change: Callable[[Tensors], Tensors]) -> Path:
    copied = Path(shutil.copytree(DEMO / "policy", folder / "policy"))
    file = copied / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})
    return copied


def refused(folder: Path) -> str:
    with pytest.raises(PolicyError) as caught:
        load_policy(folder, digest="x")
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_missing_weights_are_counted_and_named(tmp_path: Path) -> None:
    folder = demo_with(tmp_path, lambda all_: {n: t for n, t in all_.items() if "projector" not in n})
    assert "4 weights are missing: model.multi_modal_projector.linear_1.bias" in refused(folder)


def test_weights_that_the_model_has_no_place_for_are_counted_and_named(tmp_path: Path) -> None:
    folder = demo_with(tmp_path, lambda all_: all_ | {"model.more.weight": torch.zeros(2)})
    assert "1 weight left over: model.more.weight" in refused(folder)


def test_weights_of_another_shape_are_named(tmp_path: Path) -> None:
    (name,) = [n for n in load_file(DEMO / "policy" / "model.safetensors") if n.endswith("projector.linear_1.bias")]
    folder = demo_with(tmp_path, lambda all_: all_ | {name: torch.zeros(3)})
    assert "1 weight of another shape: model.multi_modal_projector.linear_1.bias" in refused(folder)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_an_architecture_saves_it_loads_without_complaint(name: str, tmp_path: Path) -> None:
    policy = tiny(name)
    policy.model.save_pretrained(tmp_path)
    policy.processor.save_pretrained(tmp_path)
    again = load_policy(tmp_path, digest="x")
    assert again.banned_ids == policy.banned_ids


def test_a_pointer_in_place_of_weights_is_named_with_the_command(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(DEMO / "policy", tmp_path / "policy"))
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    text = refused(folder)
    assert text.startswith(f"{folder}: not a vision-language checkpoint") and "git lfs pull" in text


def test_an_adapter_without_its_base_is_named(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "org/model"}))
    assert "an adapter, not a whole model; merge it into org/model" in refused(tmp_path)


@pytest.mark.parametrize("kind", sorted(UNSUPPORTED))
def test_an_unsupported_kind_is_refused_with_its_reason_before_anything_is_loaded(kind: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(PolicyError, match=re.escape(f"{kind} is not supported: {UNSUPPORTED[kind]}")):
        check_folder(tmp_path)


def test_generation_fields_that_cannot_be_honoured_are_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(DEMO / "policy", tmp_path / "policy"))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 2, "guidance_scale": 3.0}))
    with pytest.raises(PolicyError, match=r"generation_config\.json sets guidance_scale 3\.0"):
        check_folder(folder)
