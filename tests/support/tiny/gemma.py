"""Gemma's family: sliding windows, images whose tokens see each other, two end tokens, a first token written twice over."""

from __future__ import annotations

import transformers as hf

from tests.support.tiny import templates
from tests.support.tiny.words import PATCH, TILE, VISION, Parts, chat_tokenizer, text_sizes

WINDOW = 6  # tokens; shorter than every prompt


def gemma3() -> Parts:
    """Gemma 3: two of three layers see the last tokens only, image tokens see their whole image."""
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


BUILDERS = {"gemma3": gemma3}
