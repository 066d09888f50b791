"""ERNIE 4.5 VL and PaddleOCR-VL: rotary axes as in Qwen2-VL; ERNIE has experts for text and others for images."""

from __future__ import annotations

from typing import Any

import transformers as hf

from tests.support.tiny import templates
from tests.support.tiny.words import EOS, PATCH, TILE, VISION, Parts, chat_tokenizer, text_sizes

START, IMAGE, END = "<|IMAGE_START|>", "<|IMAGE_PLACEHOLDER|>", "<|IMAGE_END|>"
VIDEO = {
    "video_start_token": "<|VIDEO_START|>",
    "video_token": "<|VIDEO_PLACEHOLDER|>",
    "video_end_token": "<|VIDEO_END|>",
}
BOS = "<|begin_of_sentence|>"
SIZE = {"shortest_edge": TILE**2, "longest_edge": 12 * TILE**2}


def _rope(*sections: int) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": list(sections)}


def ernie4_5_vl_moe() -> Parts:
    """ERNIE 4.5 VL: separate experts for text and for images, which token types choose."""
    named = {"image_token": IMAGE, "image_start_token": START, "image_end_token": END, **VIDEO}
    tok = chat_tokenizer(named, bos=BOS, eos=EOS)
    config = hf.Ernie4_5_VLMoeConfig(
        vision_config={"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "patch_size": PATCH},
        text_config=text_sizes(
            tok,
            rope_parameters=_rope(3, 3, 2),
            moe_intermediate_size=[32, 16],
            moe_k=2,
            moe_num_experts=4,
            moe_num_shared_experts=1,
            tie_word_embeddings=False,
        ),
        **{f"{name}_id": tok.convert_tokens_to_ids(token) for name, token in named.items()},
        tie_word_embeddings=False,
    )
    images = hf.Ernie4_5_VLMoeImageProcessor(size=SIZE, patch_size=PATCH)
    template = templates.ernie(f"{START}{IMAGE}{END}")
    videos = hf.Ernie4_5_VLMoeVideoProcessor(draw_on_frames=False)
    return Parts(config, hf.Ernie4_5_VLMoeProcessor(images, tok, videos, chat_template=template))


def paddleocr_vl() -> Parts:
    """PaddleOCR-VL: a tower for images of any size before ERNIE's language model."""
    named = {"image_token": IMAGE}
    tok = chat_tokenizer(named, START, END, *VIDEO.values(), bos=BOS, eos=EOS)
    config = hf.PaddleOCRVLConfig(
        vision_config={**VISION, "image_size": 2 * TILE, "patch_size": PATCH},
        text_config=text_sizes(tok, head_dim=16, rope_parameters=_rope(2, 3, 3), tie_word_embeddings=False),
        image_token_id=tok.image_token_id,
        video_token_id=tok.convert_tokens_to_ids(VIDEO["video_token"]),
        vision_start_token_id=tok.convert_tokens_to_ids(START),
        vision_end_token_id=tok.convert_tokens_to_ids(END),
        tie_word_embeddings=False,
    )
    images = hf.PaddleOCRVLImageProcessor(size=SIZE, patch_size=PATCH)
    template = templates.ernie(f"{START}{IMAGE}{END}")
    return Parts(config, hf.PaddleOCRVLProcessor(images, tok, chat_template=template))


BUILDERS = {"ernie4_5_vl_moe": ernie4_5_vl_moe, "paddleocr_vl": paddleocr_vl}
