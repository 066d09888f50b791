"""Gemma's family: sliding windows, images whose tokens see each other, two end tokens, a first token written twice over."""

from __future__ import annotations

from typing import Any

import transformers as hf

from tests.support.tiny import templates
from tests.support.tiny.words import PATCH, TILE, VISION, Parts, chat_tokenizer, text_sizes

WINDOW = 6  # tokens; shorter than every prompt


def gemma3() -> Parts:
    """Gemma 3: sliding windows in two of three layers, bidirectional attention within an image, two end tokens."""
    named = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    ends = ("<end_of_turn>", "<eos>")
    tok = chat_tokenizer(named, "<start_of_turn>", *ends, bos="<bos>", eos="<eos>", adds_bos=True)
    config = hf.Gemma3Config(
        vision_config=hf.SiglipVisionConfig(**VISION, image_size=2 * TILE, patch_size=PATCH, vision_use_head=False),
        text_config=hf.Gemma3TextConfig(
            **text_sizes(tok, head_dim=16, query_pre_attn_scalar=16, sliding_window=WINDOW),
            layer_types=["sliding_attention", "sliding_attention", "full_attention"],
            tie_word_embeddings=False,
        ),
        mm_tokens_per_image=4,
        boi_token_index=tok.boi_token_id,
        eoi_token_index=tok.eoi_token_id,
        image_token_index=tok.image_token_id,
        tie_word_embeddings=False,
    )
    # Pan and scan cuts wide images into more pieces, so that prompts differ in length.
    images = hf.Gemma3ImageProcessor(
        size={"height": 2 * TILE, "width": 2 * TILE},
        do_pan_and_scan=True,
        pan_and_scan_min_crop_size=16,
        pan_and_scan_max_num_crops=3,
        pan_and_scan_min_ratio_to_activate=1.6,
    )
    template = templates.gemma("<start_of_image>")
    return Parts(config, hf.Gemma3Processor(images, tok, chat_template=template, image_seq_length=4), ends)


def _gemma4(**text: Any) -> Parts:
    named = {"image_token": "<|image|>", "boi_token": "<|image>", "eoi_token": "<image|>"}
    named |= {"audio_token": "<|audio|>", "boa_token": "<|audio>", "eoa_token": "<audio|>"}
    ends = ("<turn|>", "<eos>")
    tok = chat_tokenizer(named, "<|turn>", "<|video|>", *ends, bos="<bos>", eos="<eos>", adds_bos=True)
    layers = ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention", "full_attention"]
    config = hf.Gemma4Config(
        vision_config={**VISION, "num_key_value_heads": 2, "head_dim": 16, "patch_size": 4, "pooling_kernel_size": 3},
        text_config=hf.Gemma4TextConfig(
            **text_sizes(tok, num_hidden_layers=5, head_dim=16, sliding_window=WINDOW),
            layer_types=layers,
            vocab_size_per_layer_input=len(tok),
            tie_word_embeddings=False,
            **text,
        ),
        audio_config=None,
        tie_word_embeddings=False,
        **{f"{name}_id": tok.convert_tokens_to_ids(token) for name, token in named.items() if name != "eoa_token"},
        eoa_token_index=tok.eoa_token_id,
        video_token_id=tok.convert_tokens_to_ids("<|video|>"),
    )
    images = hf.Gemma4ImageProcessor(patch_size=4, max_soft_tokens=70, pooling_kernel_size=3)
    processor = hf.Gemma4Processor(
        hf.Gemma4AudioFeatureExtractor(),
        images,
        tok,
        hf.Gemma4VideoProcessor(),
        chat_template=templates.gemma4("<|image|>"),
        image_seq_length=70,
    )
    return Parts(config, processor, ends)


def gemma4() -> Parts:
    """Gemma 4 31B: sliding windows, wider heads in the other layers, bidirectional attention within an image."""
    return _gemma4(hidden_size_per_layer_input=0, global_head_dim=32, use_bidirectional_attention="vision")


def gemma4_e2b() -> Parts:
    """Gemma 4 E2B: sliding windows; the last layers use earlier layers' keys and values; token embeddings for each layer."""
    return _gemma4(hidden_size_per_layer_input=8, global_head_dim=32, num_kv_shared_layers=2)


def paligemma() -> Parts:
    """PaliGemma: bidirectional attention over image and prompt."""
    tok = chat_tokenizer({"image_token": "<image>"}, bos="<bos>", eos="<eos>", adds_bos=True)
    images = hf.SiglipImageProcessor(size={"height": TILE, "width": TILE})
    images.image_seq_length = (TILE // PATCH) ** 2
    processor = hf.PaliGemmaProcessor(images, tok, chat_template=templates.prefix("<image>"))
    config = hf.PaliGemmaConfig(
        vision_config=hf.SiglipVisionConfig(**VISION, image_size=TILE, patch_size=PATCH, vision_use_head=False),
        text_config=hf.GemmaConfig(**text_sizes(tok, head_dim=16), tie_word_embeddings=False),
        image_token_index=tok.image_token_id,
        projection_dim=64,
        hidden_size=64,
        tie_word_embeddings=False,
    )
    return Parts(config, processor, ("<eos>",))


BUILDERS = {"gemma3": gemma3, "gemma4": gemma4, "gemma4_e2b": gemma4_e2b, "paligemma": paligemma}
