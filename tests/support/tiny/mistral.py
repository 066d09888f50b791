"""Pixtral's tower, which keeps an image's shape: rows of tokens with a break after each; in LLaVA and in Mistral 3."""

from __future__ import annotations

import transformers as hf

from tests.support.tiny import templates
from tests.support.tiny.words import EOS, PATCH, TILE, VISION, Parts, byte_tokenizer, chat_tokenizer, text_sizes


def _tokenizer() -> hf.PreTrainedTokenizerFast:
    others = ("[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[IMG_BREAK]", "[IMG_END]")
    return chat_tokenizer({"image_token": "[IMG]"}, *others, bos="<s>", eos=EOS, adds_bos=True)


def _processor(tok: hf.PreTrainedTokenizerFast, patch: int, merge: int) -> hf.PixtralProcessor:
    images = hf.PixtralImageProcessor(size={"longest_edge": 2 * TILE}, patch_size={"height": patch, "width": patch})
    template = templates.instruction("[IMG]")
    return hf.PixtralProcessor(images, tok, patch_size=patch, spatial_merge_size=merge, chat_template=template)


def pixtral() -> Parts:
    """Pixtral in LLaVA: an image keeps its shape, in rows with a break token; no generation prompt."""
    tok = _tokenizer()
    config = hf.LlavaConfig(
        vision_config=hf.PixtralVisionConfig(**VISION, image_size=2 * TILE, patch_size=PATCH),
        text_config=hf.MistralConfig(**text_sizes(tok), sliding_window=None),
        image_token_index=tok.image_token_id,
        image_seq_length=1,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    return Parts(config, _processor(tok, PATCH, 1))


def mistral3() -> Parts:
    """Mistral Small 3.1: as Pixtral, two by two patches merged to a token."""
    tok = _tokenizer()
    config = hf.Mistral3Config(
        vision_config=hf.PixtralVisionConfig(**VISION, image_size=2 * TILE, patch_size=PATCH // 2),
        text_config=hf.MistralConfig(**text_sizes(tok), sliding_window=None, tie_word_embeddings=False),
        image_token_index=tok.image_token_id,
        spatial_merge_size=2,
        tie_word_embeddings=False,
    )
    return Parts(config, _processor(tok, PATCH // 2, 2))


def lighton_ocr() -> Parts:
    """LightOnOCR: Pixtral's tower before Qwen3, one run of image tokens without breaks; ChatML."""
    end, last = "<|im_end|>", "<|endoftext|>"
    named = {"image_token": "<|image_pad|>", "image_break_token": "<|vision_pad|>", "image_end_token": "<|vision_end|>"}
    tok = byte_tokenizer(hf.Qwen2Tokenizer, named, "<|im_start|>", eos=end, pad=last)
    patch = PATCH // 2
    config = hf.LightOnOcrConfig(
        vision_config=hf.PixtralVisionConfig(**VISION, image_size=2 * TILE, patch_size=patch),
        text_config=hf.Qwen3Config(**text_sizes(tok, head_dim=16), tie_word_embeddings=False),
        image_token_id=tok.image_token_id,
        tie_word_embeddings=False,
    )
    images = hf.PixtralImageProcessor(size={"longest_edge": 2 * TILE}, patch_size={"height": PATCH, "width": PATCH})
    processor = hf.LightOnOcrProcessor(
        images, tok, patch_size=patch, spatial_merge_size=2, chat_template=templates.chatml("<|image_pad|>")
    )
    return Parts(config, processor, (end, last))


BUILDERS = {"pixtral": pixtral, "mistral3": mistral3, "lighton_ocr": lighton_ocr}
