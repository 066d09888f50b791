"""Any checkpoint loads, or the error states why not; its inputs end where the answer begins."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from tasks.core.models.policy import PolicyError, load_policy
from tests.support.paths import DEMO


def copy_of_the_demo(folder: Path) -> Path:
    return Path(shutil.copytree(DEMO / "policy", folder / "policy"))


def test_a_folder_that_holds_no_model_says_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"not a vision-language checkpoint .* Needed: a folder or hub id"):
        load_policy(tmp_path, digest="x")


def test_a_language_model_is_no_policy(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(PolicyError, match="not a vision-language checkpoint"):
        load_policy(tmp_path, digest="x")


def test_a_checkpoint_without_its_processor_is_refused(tmp_path: Path) -> None:
    folder = copy_of_the_demo(tmp_path)
    for name in ("processor_config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(PolicyError, match="with its processor"):
        load_policy(folder, digest="x")


def test_a_processor_without_a_chat_template_is_refused(tmp_path: Path) -> None:
    folder = copy_of_the_demo(tmp_path)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(PolicyError, match=r"no chat template; add chat_template\.jinja"):
        load_policy(folder, digest="x")


def test_loaded_models_neither_learn_nor_drop_out(policy) -> None:
    assert not policy.model.training
    assert not any(p.requires_grad for p in policy.model.parameters())
    assert policy.device.type == "cpu"
    assert policy.end_ids == {policy.tokenizer.eos_token_id}
    assert policy.pad_id == policy.tokenizer.pad_token_id


def test_precision_is_as_set() -> None:
    assert load_policy(DEMO / "policy", digest="x", dtype="bfloat16").model.dtype == torch.bfloat16


def test_inputs_are_padded_on_the_left_and_end_with_the_turn_of_the_assistant(policy, pictures, prompts) -> None:
    inputs = policy.inputs(pictures[:5], prompts[:5])
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    assert (mask.diff(dim=1) >= 0).all(), "padding on the right"
    assert mask[:, 0].min() == 0
    assert (mask[:, -1] == 1).all()
    for row, prompt in zip(range(5), prompts, strict=False):
        real = ids[row][mask[row].bool()]
        text = policy.tokenizer.decode(real)
        assert text.startswith("<s>")
        assert text.count("<s>") == 1, "the template's first token came twice"
        assert text.endswith(f"{prompt}<assistant>")
        assert int((real == policy.model.config.image_token_id).sum()) == 9


def test_without_an_answer_next_the_turn_ends_with_the_text(policy, pictures) -> None:
    inputs = policy.inputs(pictures[:1], ["There is a dog."], answer_next=False)
    assert policy.tokenizer.decode(inputs["input_ids"][0]).endswith("There is a dog.")


def test_images_and_texts_come_in_pairs(policy, pictures) -> None:
    with pytest.raises(ValueError, match="zip"):
        policy.inputs(pictures[:2], ["one"])


def test_an_answer_s_tokens_are_its_text_and_special_tokens_in_it_are_text(policy) -> None:
    plain = "There is a dog. There is a cat."
    assert policy.answer_ids(f" {plain} ") == policy.tokenizer(plain, add_special_tokens=False).input_ids
    ids = policy.answer_ids("The page shows <image> and </s>.")
    assert not set(ids) & {policy.model.config.image_token_id, *policy.end_ids}
    assert policy.end_id in policy.end_ids
