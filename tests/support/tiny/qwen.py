"""Qwen's family: images of any size, rotary axes for time, height and width; the newer ones with deep features or states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import transformers as hf

from tests.support.tiny import templates
from tests.support.tiny.words import PATCH, TILE, Parts, byte_tokenizer, text_sizes, tokenizer

START, IMAGE, END, VIDEO = "<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|video_pad|>"
OPEN, CLOSE, LAST = "<|im_start|>", "<|im_end|>", "<|endoftext|>"


def images() -> hf.Qwen2VLImageProcessor:
    """One to twelve squares of TILE pixels, a token each."""
    return hf.Qwen2VLImageProcessor(size={"shortest_edge": TILE**2, "longest_edge": 12 * TILE**2}, patch_size=PATCH)


def _ids(tok: hf.PreTrainedTokenizerFast) -> dict[str, Any]:
    names = {"image_token_id": IMAGE, "video_token_id": VIDEO}
    names |= {"vision_start_token_id": START, "vision_end_token_id": END}
    return {name: tok.convert_tokens_to_ids(token) for name, token in names.items()}


def _qwen2(config: Callable[..., Any], processor: Callable[..., Any], vision: dict[str, Any]) -> Parts:
    tok = tokenizer(IMAGE, START, END, VIDEO)
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
    built = config(
        vision_config={"depth": 2, "num_heads": 2, "patch_size": PATCH, **vision},
        text_config=text_sizes(tok, rope_parameters=rope),
        **_ids(tok),
    )
    template = templates.markers(f"{START}{IMAGE}{END}")
    return Parts(built, processor(images(), tok, hf.Qwen2VLVideoProcessor(), chat_template=template))


def qwen2_vl() -> Parts:
    """Qwen2-VL: rotary axes for time, height and width; a template of markers."""
    return _qwen2(hf.Qwen2VLConfig, hf.Qwen2VLProcessor, {"embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2})


def qwen2_5_vl() -> Parts:
    """Qwen2.5-VL: as Qwen2-VL, with windows in the tower."""
    vision = {"hidden_size": 32, "out_hidden_size": 64, "intermediate_size": 64, "window_size": 2 * TILE}
    return _qwen2(hf.Qwen2_5_VLConfig, hf.Qwen2_5_VLProcessor, {**vision, "fullatt_block_indexes": [1]})


def _qwen3(config: Callable[..., Any], *, thinking: bool, vision: dict[str, Any], **text: Any) -> Parts:
    plain = ("<think>", "</think>") if thinking else ()
    named = {"image_token": IMAGE, "video_token": VIDEO, "vision_start_token": START, "vision_end_token": END}
    family = hf.Qwen3_5Tokenizer if thinking else hf.Qwen2Tokenizer
    tok = byte_tokenizer(family, named, OPEN, eos=CLOSE, pad=LAST, plain=plain)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 64, "num_position_embeddings": 16}
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2], "mrope_interleaved": True}
    built = config(
        vision_config={"depth": 3, "num_heads": 2, "patch_size": PATCH, **sizes, **vision},
        text_config=text_sizes(tok, **{"head_dim": 16, "rope_parameters": rope, **text}),
        **_ids(tok),
    )
    template = templates.chatml(f"{START}{IMAGE}{END}", thinking=thinking)
    processor = hf.Qwen3VLProcessor(images(), tok, hf.Qwen3VLVideoProcessor(), chat_template=template)
    return Parts(built, processor, (CLOSE, LAST))


def qwen3_vl() -> Parts:
    """Qwen3-VL: deepstack (tower features added to the first text layers); ChatML; two end tokens."""
    return _qwen3(hf.Qwen3VLConfig, thinking=False, vision={"deepstack_visual_indexes": [0, 1]})


def qwen3_vl_tied() -> Parts:
    """Qwen3-VL 2B and 4B: the output layer is the token embedding."""
    parts = _qwen3(hf.Qwen3VLConfig, thinking=False, vision={"deepstack_visual_indexes": [0, 1]})
    parts.config.tie_word_embeddings = parts.config.text_config.tie_word_embeddings = True
    return parts._replace(seed=11)


def qwen3_vl_moe() -> Parts:
    """Qwen3-VL with experts in each layer."""
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "decoder_sparse_step": 1}
    vision = {"deepstack_visual_indexes": [0, 1]}
    return _qwen3(hf.Qwen3VLMoeConfig, thinking=False, vision=vision, **experts)._replace(seed=9)


LINEAR = {
    "layer_types": ["linear_attention", "linear_attention", "full_attention"],
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    # A quarter of each head turns.
    "head_dim": 64,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.25,
        "mrope_section": [4, 2, 2],
        "mrope_interleaved": True,
    },
}


def qwen3_5() -> Parts:
    """Qwen3.5: recurrent and convolution states in two of three layers; the generation prompt opens a thought."""
    return _qwen3(hf.Qwen3_5Config, thinking=True, vision={}, **LINEAR)


def qwen3_5_moe() -> Parts:
    """Qwen3.5 with experts in each layer."""
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    more = {"shared_expert_intermediate_size": 32}
    return _qwen3(hf.Qwen3_5MoeConfig, thinking=True, vision={}, **LINEAR, **experts, **more)._replace(seed=8)


BUILDERS = {
    "qwen2_vl": qwen2_vl,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
    "qwen3_5": qwen3_5,
    "qwen3_vl_tied": qwen3_vl_tied,
    "qwen3_vl_moe": qwen3_vl_moe,
    "qwen3_5_moe": qwen3_5_moe,
}
