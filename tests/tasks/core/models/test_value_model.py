"""V reads image and text, or the policy's states, the same in every batch; what is saved is what is loaded."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tasks.core.engine.guides import TurnValues, WholeTurnValues, turn_values
from tasks.core.models.policy import load_policy
from tasks.core.models.value import StateValue, ValueModel, ValueSpec, load_state_value, load_value, read_spec
from tasks.core.search.requests import Candidate
from tests.support.paths import DEMO
from tests.support.tiny_models import ARCHITECTURES, tiny

TEXTS = ["There is a dog.", "I can see a dining table and a cup here.", "There is a cat.", "A pizza."]


def new_value(train: str = "full", layer: int = -1, pooling: str = "last") -> ValueModel:
    torch.set_num_threads(1)
    spec = ValueSpec("demo", train=train, layer=layer, state="sentence", lora_rank=4, pooling=pooling)
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
    tensors = new_value("lora").tensors()
    torch.manual_seed(2)
    other = new_value("lora").tensors()
    assert all(torch.equal(tensors[name], other[name]) for name in tensors)


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


def test_the_spec_names_its_backbone(tmp_path: Path) -> None:
    new_value("frozen").save(tmp_path)
    assert json.loads((tmp_path / "value.json").read_text())["backbone"] == "demo"
    assert (tmp_path / "value.safetensors").stat().st_size < 10_000, "the frozen backbone was copied"


def test_a_spec_of_before_there_were_two_kinds_is_one_of_image_and_text(tmp_path: Path) -> None:
    new_value("frozen").save(tmp_path)
    spec = json.loads((tmp_path / "value.json").read_text())
    del spec["reads"], spec["pooling"]
    (tmp_path / "value.json").write_text(json.dumps(spec))
    assert (read_spec(tmp_path).reads, read_spec(tmp_path).pooling) == ("image_and_text", "last")
    assert load_value(tmp_path, DEMO / "policy").spec.reads == "image_and_text"


def test_the_value_of_a_hidden_state_is_that_of_the_turn_it_came_from(pictures) -> None:
    value = new_value("frozen")
    with torch.inference_mode():
        inputs = value.policy.inputs(pictures[:1], TEXTS[:1], answer_next=False)
        hidden = value.policy.model.model(**inputs).last_hidden_state[:, -1]
        assert torch.allclose(value.head_of(hidden), value(pictures[:1], TEXTS[:1]), atol=1e-5)


# The mean over the text

PAIRS = [(i, "", Candidate(text, 0.0, ended=False, drawn=1)) for i in range(3) for text in (*TEXTS[:3], "")]


def mean_value(name: str) -> ValueModel:
    if name == "demo":
        return new_value("frozen", pooling="mean")
    return ValueModel(tiny(name), ValueSpec("x", "frozen", -1, "sentence", pooling="mean"))


@pytest.mark.parametrize("name", ["demo", *ARCHITECTURES])
def test_a_mean_is_over_the_tokens_behind_the_image(name: str, pictures) -> None:
    value = mean_value(name)
    policy, text = value.policy, "There is a dog on the left."
    with torch.inference_mode():
        inputs = policy.inputs(pictures[:1], [text], answer_next=False)
        hidden = policy.hidden(inputs, -1)[0]
        result = float(value(pictures[:1], [text]))
        ids = policy.tokenizer(text, add_special_tokens=False)["input_ids"]
        # In the demo's template and those of the tiny models nothing but the text stands behind the image.
        characters = len(policy.tokenizer.decode(inputs["input_ids"][0][-len(ids) :]).strip())
        assert characters >= len(text) - 2
        behind = value._behind_image(text)
        assert len(ids) <= behind <= len(ids) + 4
        assert result == pytest.approx(float(value.head_of(hidden[-behind:].mean(dim=0)[None])), abs=1e-5)


@pytest.mark.parametrize("name", ["demo", "llava_next", "qwen2_vl", "idefics3", "mllama"])
def test_means_do_not_depend_on_the_batch_and_a_search_gets_the_same(name: str, pictures) -> None:
    value = mean_value(name)
    guide = turn_values(value, Counter())
    assert isinstance(guide, WholeTurnValues)
    result = guide.value(dict(enumerate(pictures)), PAIRS)
    with torch.inference_mode():
        alone = [float(value([pictures[i]], [item.text])) for i, _, item in PAIRS]
    assert result == pytest.approx(alone, abs=1e-5)
    assert len({round(item, 6) for item in result}) == len(PAIRS)


def test_the_mean_counts_every_word_and_the_last_state_is_another(pictures) -> None:
    with torch.inference_mode():
        mean, last = (new_value("frozen", pooling=item)(pictures[:2], TEXTS[:2]) for item in ("mean", "last"))
    assert not torch.allclose(mean, last, atol=1e-3)


def test_a_template_that_puts_the_text_first_has_no_mean(monkeypatch) -> None:
    monkeypatch.setattr(ValueModel, "_tokens_behind_image", lambda self, text: 0)
    with pytest.raises(ValueError, match="puts no text behind the image: want last"):
        new_value("frozen", pooling="mean")
    new_value("frozen")


def test_the_mean_of_an_empty_text_is_of_the_token_that_ends_the_turn(pictures) -> None:
    mean, last = new_value("frozen", pooling="mean"), new_value("frozen")
    assert mean._behind_image("") == 0
    with torch.inference_mode():
        result = mean(pictures[:2], ["", TEXTS[1]])
        assert torch.allclose(result[:1], last(pictures[:1], [""]), atol=1e-5)


def test_the_fast_guide_refuses_a_mean() -> None:
    with pytest.raises(ValueError, match="of the last token only"):
        TurnValues(mean_value("demo"), Counter())


def test_a_saved_mean_is_one_when_it_is_loaded(tmp_path: Path, pictures) -> None:
    value = new_value("frozen", pooling="mean")
    step(value, pictures)
    value.save(tmp_path)
    again = load_value(tmp_path, DEMO / "policy")
    assert again.spec.pooling == "mean"
    assert torch.equal(again(pictures[:4], TEXTS), value(pictures[:4], TEXTS).detach())


def test_what_the_backbone_or_the_head_does_not_have_is_refused() -> None:
    layers = new_value("frozen").policy.model.config.get_text_config().num_hidden_layers
    new_value("frozen", layer=-layers - 1)
    for layer in (-layers - 2, 0):
        with pytest.raises(ValueError, match=rf"layer is {layer}: the language model has {layers} layers, so want -1"):
            new_value("frozen", layer=layer)
    with pytest.raises(ValueError, match="pooling is 'max': want last or mean"):
        new_value("frozen", pooling="max")


def test_one_kind_is_not_taken_for_the_other(tmp_path: Path) -> None:
    spec = ValueSpec("demo", train="frozen", layer=-1, state="prefix", reads="policy_states")
    StateValue.of(torch.randn(20, 12), spec).save(tmp_path / "states")
    new_value("frozen").save(tmp_path / "turns")
    with pytest.raises(ValueError, match=r"reads policy_states, wanted image_and_text; load_state_value loads it"):
        load_value(tmp_path / "states", DEMO / "policy")
    with pytest.raises(ValueError, match=r"reads image_and_text, wanted policy_states; load_value loads it"):
        load_state_value(tmp_path / "turns", "cpu")
