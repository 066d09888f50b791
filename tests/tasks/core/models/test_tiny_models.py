"""The tiny models behave as their architectures do: batches, caches and positions, as the engine relies on them."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tasks.core.models.policy import Policy
from tasks.core.text import split_sentences
from tests.support.demo_models import PROMPTS
from tests.support.tiny_models import ARCHITECTURES, tiny

M_ROPE = {"qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5"}
NEW = torch.tensor([[5, 20, 30], [40, 8, 33], [25, 50, 6]])  # token ids that follow each row's prompt
CLOSE = {"atol": 1e-4, "rtol": 0.0}


def noise(width: int, height: int, seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


IMAGES = [noise(28, 28, 1), noise(60, 28, 2), noise(90, 90, 3)]  # tiled differently


# Rows of windows can't be masked and states can't be picked: the engine's own tests are about these.
PLAIN_CACHES = [name for name in ARCHITECTURES if name not in {"gemma3", "qwen3_5"}]


@pytest.fixture(scope="module", params=PLAIN_CACHES)
def named_policy(request) -> tuple[str, Policy]:
    torch.set_num_threads(1)
    return request.param, tiny(request.param)


def positions_of(name: str, policy: Policy, inputs: dict[str, Any]) -> torch.Tensor:
    """Positions of the prompts: [B, L], or [3, B, L] with M-RoPE, where text has three equal ones."""
    if name in M_ROPE:
        needed = ("input_ids", "mm_token_type_ids", "image_grid_thw", "attention_mask")
        return policy.model.model.get_rope_index(**{key: inputs[key] for key in needed})[0]
    return (inputs["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)


def longer(inputs: dict[str, Any], tokens: torch.Tensor) -> dict[str, Any]:
    """The inputs with tokens [B, K] after each prompt."""
    rows, count = tokens.shape
    after = {
        "input_ids": tokens,
        "attention_mask": torch.ones_like(tokens),
        "mm_token_type_ids": torch.zeros_like(tokens),
    }
    if "cross_attention_mask" in inputs:
        after["cross_attention_mask"] = inputs["cross_attention_mask"][:, -1:].expand(rows, count, -1, -1)
    return {key: torch.cat([value, after[key]], dim=1) if key in after else value for key, value in inputs.items()}


def test_rows_of_a_batch_are_left_padded_and_finite(named_policy) -> None:
    _, policy = named_policy
    inputs = policy.inputs(IMAGES, PROMPTS[:3])
    lengths = inputs["attention_mask"].sum(dim=1)
    assert len(set(lengths.tolist())) == 3
    assert (inputs["attention_mask"][:, -1] == 1).all()
    assert torch.isfinite(policy.model(**inputs).logits[inputs["attention_mask"].bool()]).all()


@pytest.mark.parametrize("name", [name for name in PLAIN_CACHES if name not in {"llava", "mllama"}])
def test_images_of_other_shapes_take_other_numbers_of_placeholders(name) -> None:
    policy = tiny(name)
    ids = policy.inputs(IMAGES, ["Go."] * 3)["input_ids"]
    counts = (ids == policy.model.config.image_token_id).sum(dim=1).tolist()
    assert counts[0] != counts[1]
    assert counts[1] < counts[2]


def test_greedy_rows_give_in_a_batch_what_they_give_alone(named_policy) -> None:
    _, policy = named_policy

    def write(rows: slice) -> list[str]:
        inputs = policy.inputs(IMAGES[rows], PROMPTS[:3][rows])
        ids = policy.model.generate(**inputs, max_new_tokens=20, do_sample=False)
        return policy.tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    assert write(slice(3)) == [write(slice(row, row + 1))[0] for row in range(3)]


def test_another_image_of_the_same_shape_changes_its_own_row_only(named_policy) -> None:
    _, policy = named_policy
    others = [IMAGES[0], noise(60, 28, 9), IMAGES[2]]
    logits, changed = (policy.model(**policy.inputs(images, PROMPTS[:3])).logits[:, -1] for images in (IMAGES, others))
    torch.testing.assert_close(changed[[0, 2]], logits[[0, 2]], **CLOSE)
    assert (changed[1] - logits[1]).abs().max() > 0.5


def test_sampled_answers_vary_and_have_sentences_and_ends(named_policy) -> None:
    _, policy = named_policy
    inputs = policy.inputs(IMAGES, PROMPTS[:3])
    torch.manual_seed(0)
    ids = policy.model.generate(**inputs, max_new_tokens=60, do_sample=True, top_k=0, num_return_sequences=8)
    reply = ids[:, inputs["input_ids"].shape[1] :]
    texts = policy.tokenizer.batch_decode(reply, skip_special_tokens=True)
    assert len(set(texts)) > 12
    assert any(len(split_sentences(text)) > 1 for text in texts)
    assert any(set(row.tolist()) & policy.end_ids for row in reply)
    for text in texts:
        assert policy.tokenizer.decode(policy.tokenizer(text, add_special_tokens=False).input_ids) == text


@pytest.mark.parametrize("rows", [[0, 1, 2], [2, 0], [1, 1, 0, 2, 2]], ids=["all", "picked", "repeated"])
@pytest.mark.parametrize("count", [1, 3], ids=["one token", "three tokens"])
def test_a_cache_goes_on_as_the_whole_sequence_does(named_policy, rows, count) -> None:
    name, policy = named_policy
    inputs = policy.inputs(IMAGES, PROMPTS[:3])
    whole = longer(inputs, NEW[:, :count])
    wanted = policy.model(**whole, position_ids=positions_of(name, policy, whole)).logits[:, -count:]

    positions = positions_of(name, policy, inputs)
    cache = policy.model(**inputs, position_ids=positions, use_cache=True).past_key_values
    last = positions[0, :, -1:] if name in M_ROPE else positions[:, -1:]
    cache.batch_select_indices(torch.tensor(rows))
    step = {"input_ids": NEW[:, :count], "attention_mask": whole["attention_mask"]}
    step["position_ids"] = last + torch.arange(1, count + 1)
    if name == "mllama":
        step["cross_attention_mask"] = whole["cross_attention_mask"][:, -count:]
    picked = {key: value[rows] for key, value in step.items()}
    got = policy.model(**picked, past_key_values=cache, use_cache=True).logits
    torch.testing.assert_close(got, wanted[rows], **CLOSE)


def test_columns_masked_out_of_a_cache_are_as_if_never_fed(named_policy) -> None:
    name, policy = named_policy
    inputs = policy.inputs(IMAGES, PROMPTS[:3])
    positions = positions_of(name, policy, inputs)
    last = positions[0, :, -1:] if name in M_ROPE else positions[:, -1:]
    cache = policy.model(**inputs, position_ids=positions, use_cache=True).past_key_values
    spoilt, mask = copy.deepcopy(cache), inputs["attention_mask"]
    cross = {"cross_attention_mask": inputs["cross_attention_mask"][:, -1:]} if name == "mllama" else {}

    def feed(into: Any, token: torch.Tensor, before: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen = torch.cat([before, torch.ones_like(token)], dim=1)
        out = policy.model(
            input_ids=token, attention_mask=seen, position_ids=last + 1, past_key_values=into, use_cache=True, **cross
        )
        return out.logits[:, -1], seen

    _, seen = feed(spoilt, NEW[:, :1], mask)
    seen[:, -1] = 0
    torch.testing.assert_close(feed(spoilt, NEW[:, 1:2], seen)[0], feed(cache, NEW[:, 1:2], mask)[0], **CLOSE)


def test_generate_uses_the_positions_that_the_tests_use(named_policy) -> None:
    name, policy = named_policy
    inputs = policy.inputs(IMAGES, PROMPTS[:3])
    out = policy.model.generate(
        **inputs, max_new_tokens=1, do_sample=False, return_dict_in_generate=True, output_logits=True
    )
    explicit = policy.model(**inputs, position_ids=positions_of(name, policy, inputs)).logits[:, -1]
    torch.testing.assert_close(explicit, out.logits[0], **CLOSE)


def test_the_output_layer_reads_the_last_hidden_state(named_policy) -> None:
    _, policy = named_policy
    read: list[torch.Tensor] = []
    layer = policy.model.get_output_embeddings()
    hook = layer.register_forward_pre_hook(lambda _, arguments: read.append(arguments[0]))
    out = policy.model(**policy.inputs(IMAGES, PROMPTS[:3]), output_hidden_states=True, logits_to_keep=1)
    hook.remove()
    torch.testing.assert_close(read[0], out.hidden_states[-1][:, -1:])
    torch.testing.assert_close(layer(read[0]), out.logits)


def test_a_row_of_mllama_caches_all_tiles_and_sees_its_own() -> None:
    policy = tiny("mllama")
    inputs = policy.inputs(IMAGES, PROMPTS[:3])
    cache = policy.model(**inputs, use_cache=True).past_key_values
    tiles, per_tile, length = 4, 5, inputs["input_ids"].shape[1]
    assert [layer.keys.shape[2] for layer in cache.layers] == [length, tiles * per_tile, length, tiles * per_tile]
    assert inputs["cross_attention_mask"][:, -1, 0].sum(dim=1).tolist() == [1, 3, 4]
