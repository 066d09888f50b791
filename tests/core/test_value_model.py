"""V reads image and text, the same in every batch; what is saved is what is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from demo_models import DEMO
from safetensors.torch import load_file, save_file

from tasks.core.models.policy import load_policy
from tasks.core.models.value import ValueModel, ValueSpec, load_value, read_spec

TEXTS = ["There is a dog.", "I can see a dining table and a cup here.", "There is a cat.", "A pizza."]


def new_value(train: str = "full", layer: int = -1) -> ValueModel:
    torch.set_num_threads(1)
    spec = ValueSpec("demo", train=train, layer=layer, state="sentence", lora_rank=4)
    return ValueModel(load_policy(DEMO / "policy", digest="demo"), spec)


def step(value: ValueModel, pictures) -> None:
    optimizer = torch.optim.AdamW(value.parameters().values(), lr=1e-2)
    for _ in range(2):  # a fresh adapter's first gradient reaches one of its two halves only
        value(pictures[:4], TEXTS).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("train", ["full", "lora", "frozen"])
def test_what_is_saved_is_what_is_loaded(train: str, tmp_path: Path, pictures) -> None:
    value = new_value(train)
    start = {name: p.detach().clone() for name, p in value.parameters().items()}
    before = value(pictures[:4], TEXTS).detach()
    step(value, pictures)
    after = value(pictures[:4], TEXTS).detach()
    assert not torch.allclose(before, after)
    assert all(not torch.equal(start[name], p) for name, p in value.parameters().items())
    value.save(tmp_path)
    again = load_value(tmp_path, DEMO / "policy")
    assert torch.equal(again(pictures[:4], TEXTS), after)
    assert read_spec(tmp_path) == again.spec == value.spec
    assert not any(p.requires_grad for p in again.policy.model.parameters())


@pytest.mark.parametrize(
    ("train", "learns"),
    [
        ("full", {"layers", "embed_tokens", "projector", "norm", "head"}),
        ("lora", {"lora", "head"}),
        ("frozen", {"head"}),
    ],
)
def test_only_what_is_named_learns(train: str, learns: set[str]) -> None:
    names = new_value(train).parameters()
    assert {kind for kind in learns if any(kind in name for name in names)} == learns
    assert not any("vision" in name or "lm_head" in name for name in names)
    if train == "lora":
        assert all("lora_" in name or name.startswith("head") for name in names)


def test_values_do_not_depend_on_the_batch(pictures) -> None:
    value = new_value("frozen")
    with torch.inference_mode():
        together = value(pictures[:4], TEXTS)
        alone = torch.cat([value([pictures[i]], [TEXTS[i]]) for i in range(4)])
    assert together.shape == (4,)
    assert torch.allclose(together, alone, atol=1e-5)


def test_values_depend_on_image_text_and_layer(pictures) -> None:
    with torch.inference_mode():
        value = new_value("frozen")
        same = value(pictures[:2], [TEXTS[0]] * 2)
        other = value(pictures[:1] * 2, TEXTS[:2])
        lower = new_value("frozen", layer=-2)(pictures[:2], [TEXTS[0]] * 2)
    assert same[0] != same[1]
    assert other[0] != other[1]
    assert not torch.allclose(same, lower)


def test_a_new_value_model_always_starts_the_same(pictures) -> None:
    torch.manual_seed(1)
    one = new_value("lora").tensors()
    torch.manual_seed(2)
    other = new_value("lora").tensors()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("odd", ["missing", "left over"])
def test_missing_and_left_over_tensors_are_refused(odd: str, tmp_path: Path) -> None:
    new_value("frozen").save(tmp_path)
    tensors = load_file(tmp_path / "value.safetensors")
    if odd == "missing":
        del tensors["head.bias"]
    else:
        tensors["head.scale"] = torch.ones(1)
    save_file(tensors, tmp_path / "value.safetensors")
    with pytest.raises(ValueError, match=r"tensors for 2 parameters, first differences \['head\."):
        load_value(tmp_path, DEMO / "policy")


def test_the_spec_says_on_which_backbone_it_stands(tmp_path: Path) -> None:
    new_value("frozen").save(tmp_path)
    assert json.loads((tmp_path / "value.json").read_text())["backbone"] == "demo"
    assert (tmp_path / "value.safetensors").stat().st_size < 10_000, "the frozen backbone was copied"
