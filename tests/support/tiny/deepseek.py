"""DeepSeek-VL and Janus: a SigLIP tower of one image size, an image always the same number of tokens."""

from __future__ import annotations

import transformers as hf

from tests.support.tiny import templates
from tests.support.tiny.words import PATCH, TILE, VISION, Parts, chat_tokenizer, text_sizes

BOS, END = "<|begin_of_sentence|>", "<|end_of_sentence|>"
PER_IMAGE = (TILE // PATCH) ** 2


def deepseek_vl() -> Parts:
    """DeepSeek-VL: roles as words, two line breaks between turns, the first token from the tokenizer."""
    tok = chat_tokenizer({"image_token": "<image_placeholder>"}, bos=BOS, eos=END, adds_bos=True)
    config = hf.DeepseekVLConfig(
        vision_config=hf.SiglipVisionConfig(**VISION, image_size=TILE, patch_size=PATCH, vision_use_head=False),
        text_config=hf.LlamaConfig(**text_sizes(tok)),
        image_token_id=tok.image_token_id,
        tie_word_embeddings=False,
    )
    images = hf.DeepseekVLImageProcessor(size={"height": TILE, "width": TILE})
    template = templates.words("<image_placeholder>", end=END)
    processor = hf.DeepseekVLProcessor(images, tok, chat_template=template, num_image_tokens=PER_IMAGE)
    return Parts(config, processor, (END,))


def janus() -> Parts:
    """Janus, which can draw images too: its image quantizer is part of the checkpoint and never used here."""
    named = {"image_token": "<image_placeholder>", "boi_token": "<begin_of_image>", "eoi_token": "<end_of_image>"}
    tok = chat_tokenizer(named, bos=BOS, eos=END, adds_bos=True)
    quantizer = {"embed_dim": 8, "num_embeddings": 16, "latent_channels": 8, "base_channels": 32, "num_res_blocks": 1}
    widths = {"channel_multiplier": [1, 1], "projection_dim": 64, "image_token_embed_dim": 64}
    config = hf.JanusConfig(
        vision_config={
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "mlp_ratio": 2.0,
            "image_size": TILE,
            "patch_size": PATCH,
            "projection_dim": 64,
            "num_image_tokens": PER_IMAGE,
        },
        vq_config={**quantizer, **widths},
        text_config=hf.LlamaConfig(**text_sizes(tok)),
        image_token_id=tok.image_token_id,
        tie_word_embeddings=False,
    )
    processor = hf.JanusProcessor(
        hf.JanusImageProcessor(size={"height": TILE, "width": TILE}),
        tok,
        chat_template=templates.words("<image_placeholder>", end=END),
        num_image_tokens=PER_IMAGE,
    )
    return Parts(config, processor, (END,))


BUILDERS = {"deepseek_vl": deepseek_vl, "janus": janus}
