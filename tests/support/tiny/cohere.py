"""Cohere's family: three layers of four with sliding windows, the others without positions, logits that are scaled."""

from __future__ import annotations

from typing import Any

import transformers as hf

from tests.support.tiny import templates
from tests.support.tiny.words import PATCH, TILE, VISION, Parts, chat_tokenizer, text_sizes

END = "<|END_OF_TURN_TOKEN|>"
OTHERS = (
    "<|START_OF_TURN_TOKEN|>",
    "<|USER_TOKEN|>",
    "<|CHATBOT_TOKEN|>",
    "<|SYSTEM_TOKEN|>",
    "<|START_RESPONSE|>",
    "<|END_RESPONSE|>",
)
WINDOW = 6  # tokens; shorter than every prompt


def _text(tok: hf.PreTrainedTokenizerFast) -> hf.Cohere2Config:
    layers = ["sliding_attention", "sliding_attention", "full_attention"]
    return hf.Cohere2Config(
        **text_sizes(tok), sliding_window=WINDOW, layer_types=layers, logit_scale=1.0, tie_word_embeddings=False
    )


def _tower() -> hf.SiglipVisionConfig:
    return hf.SiglipVisionConfig(**VISION, image_size=TILE, patch_size=PATCH // 2, vision_use_head=False)


def _tiles(kind: Any, **more: Any) -> Any:
    size = {"height": TILE, "width": TILE}
    return kind(size=size, crop_to_patches=True, min_patches=1, max_patches=4, **more)


def cohere2_vision() -> Parts:
    """Command A Vision: sliding windows; an answer stands between response markers that the model writes itself."""
    named = {
        "image_token": "<|IMG_PATCH|>",
        "boi_token": "<|START_OF_IMG|>",
        "eoi_token": "<|END_OF_IMG|>",
        "img_line_break_token": "<|IMG_LINE_BREAK|>",
    }
    tok = chat_tokenizer(named, *OTHERS, bos="<BOS_TOKEN>", eos=END, adds_bos=True)
    config = hf.Cohere2VisionConfig(
        vision_config=_tower(),
        text_config=_text(tok),
        downsample_factor=2,
        image_token_id=tok.image_token_id,
        alignment_intermediate_size=64,
        tie_word_embeddings=False,
    )
    # Its processor takes the side of a tile in tokens for the size of a patch.
    images = _tiles(hf.Cohere2VisionImageProcessor, patch_size=2)
    template = templates.cohere("<|IMG_PATCH|>", opens_response=False)
    return Parts(config, hf.Cohere2VisionProcessor(images, tok, chat_template=template), (END,))


def aya_vision() -> Parts:
    """Aya Vision: sliding windows; numbered tiles; the prompt ends with the response marker."""
    others = (
        "<|START_OF_IMG|>",
        "<|END_OF_IMG|>",
        "<|IMG_LINE_BREAK|>",
        "TILE_GLOBAL",
        *(f"TILE_{n}" for n in range(1, 5)),
    )
    named = {"image_token": "<image>", "img_patch_token": "<|IMG_PATCH|>"}
    tok = chat_tokenizer(named, *OTHERS, *others, bos="<BOS_TOKEN>", eos=END, adds_bos=True)
    config = hf.AyaVisionConfig(
        vision_config=_tower(),
        text_config=_text(tok),
        downsample_factor=2,
        image_token_index=tok.img_patch_token_id,
        tie_word_embeddings=False,
    )
    processor = hf.AyaVisionProcessor(
        _tiles(hf.GotOcr2ImageProcessor),
        tok,
        patch_size=PATCH // 2,
        img_size=TILE,
        downsample_factor=2,
        chat_template=templates.cohere("<image>", opens_response=True),
    )
    return Parts(config, processor, (END,))


BUILDERS = {"cohere2_vision": cohere2_vision, "aya_vision": aya_vision}
