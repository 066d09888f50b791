"""GLM-4.xV: as Qwen2-VL with norms behind each block; the next user's marker ends an answer, the template writes no end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import transformers as hf

from tests.support.tiny import templates
from tests.support.tiny.words import PATCH, TILE, Parts, byte_tokenizer, text_sizes

START, IMAGE, END, VIDEO = "<|begin_of_image|>", "<|image|>", "<|end_of_image|>", "<|video|>"
USER, LAST = "<|user|>", "<|endoftext|>"


def _glm(config: Callable[..., Any], processor: Callable[..., Any], **text: Any) -> Parts:
    others = ("[gMASK]", "<sop>", "<|system|>", USER, "<|assistant|>", "<|observation|>")
    named = {"image_token": IMAGE, "video_token": VIDEO}
    tok = byte_tokenizer(
        hf.Qwen2Tokenizer,
        named,
        *others,
        START,
        END,
        "<|begin_of_video|>",
        "<|end_of_video|>",
        eos=LAST,
        pad=LAST,
        plain=("<think>", "</think>", "<answer>", "</answer>"),
    )
    rope = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5, "mrope_section": [2, 1, 1]}
    sizes = {"hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 64}
    ids = {name: tok.convert_tokens_to_ids(token) for name, token in _IDS.items()}
    built = config(
        vision_config={"depth": 2, "num_heads": 2, "patch_size": PATCH, "image_size": 2 * TILE, **sizes},
        text_config=text_sizes(tok, rope_parameters=rope, **text),
        **ids,
    )
    size = {"shortest_edge": 2 * TILE**2, "longest_edge": 24 * TILE**2}
    old = processor is hf.Glm4vProcessor
    images = (hf.Glm4vImageProcessor if old else hf.Glm46VImageProcessor)(size=size, patch_size=PATCH)
    template = templates.glm(f"{START}{IMAGE}{END}")
    videos = hf.Glm4vVideoProcessor() if old else hf.Glm46VVideoProcessor()
    return Parts(built, processor(images, tok, videos, chat_template=template), (USER, LAST))


_IDS = {
    "image_token_id": IMAGE,
    "video_token_id": VIDEO,
    "image_start_token_id": START,
    "image_end_token_id": END,
    "video_start_token_id": "<|begin_of_video|>",
    "video_end_token_id": "<|end_of_video|>",
}


def glm4v() -> Parts:
    """GLM-4.1V: the next turn's marker is an end token; the template writes none."""
    return _glm(hf.Glm4vConfig, hf.Glm4vProcessor)


def glm4v_moe() -> Parts:
    """GLM-4.5V: as GLM-4.1V, with experts after a first dense layer."""
    experts = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "first_k_dense_replace": 1}
    return _glm(hf.Glm4vMoeConfig, hf.Glm4vProcessor, **experts)


def glm46v() -> Parts:
    """GLM-4.6V Flash: GLM-4.1V's layers under another processor."""
    return _glm(hf.Glm46VConfig, hf.Glm46VProcessor)


BUILDERS = {"glm4v": glm4v, "glm46v": glm46v, "glm4v_moe": glm4v_moe}
