"""LFM2-VL: short convolutions in most layers, a tower for patches of any grid."""

from __future__ import annotations

import transformers as hf

from tests.support.tiny import templates
from tests.support.tiny.words import TILE, VISION, Parts, chat_tokenizer, text_sizes


def lfm2_vl() -> Parts:
    """LFM2-VL: two of three layers keep a convolution's state; tiles, or one image of any grid."""
    end = "<|im_end|>"
    named = {
        "image_token": "<image>",
        "image_start_token": "<|image_start|>",
        "image_end_token": "<|image_end|>",
        "image_thumbnail_token": "<|img_thumbnail|>",
    }
    tiles = [f"<|img_row_{row}_col_{column}|>" for row in range(1, 5) for column in range(1, 5)]
    tok = chat_tokenizer(named, "<|im_start|>", *tiles, bos="<|startoftext|>", eos=end)
    patch = TILE // 4
    config = hf.Lfm2VlConfig(
        vision_config=hf.Siglip2VisionConfig(**VISION, patch_size=patch, num_patches=16, vision_use_head=False),
        text_config=hf.Lfm2Config(
            **text_sizes(tok),
            layer_types=["conv", "full_attention", "conv"],
            block_auto_adjust_ff_dim=False,
            tie_word_embeddings=False,
        ),
        image_token_id=tok.image_token_id,
        projector_hidden_size=64,
        tie_word_embeddings=False,
    )
    images = hf.Lfm2VlImageProcessor(
        size={"height": TILE, "width": TILE},
        encoder_patch_size=patch,
        tile_size=TILE,
        min_tiles=2,
        max_tiles=4,
        min_image_tokens=1,
        max_image_tokens=4,
    )
    template = "{{ bos_token }}" + templates.chatml("<image>")
    return Parts(config, hf.Lfm2VlProcessor(images, tok, chat_template=template), (end,), seed=12)


BUILDERS = {"lfm2_vl": lfm2_vl}
