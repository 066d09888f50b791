"""Mllama: layers that attend to the image, instead of placeholders in the text."""

from __future__ import annotations

import transformers as hf

from tests.support.tiny import templates
from tests.support.tiny.words import PATCH, TILE, Parts, text_sizes, tokenizer


def mllama() -> Parts:
    """Llama 3.2 Vision: cross-attention to tiles instead of placeholders; a template of markers."""
    tok = tokenizer("<|image|>")
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "attention_heads": 2}
    levels = [0, 1]
    config = hf.MllamaConfig(
        vision_config={
            **vision,
            "num_global_layers": 1,
            "image_size": TILE,
            "patch_size": PATCH,
            "intermediate_layers_indices": levels,
            "vision_output_dim": 32 * (1 + len(levels)),
        },
        # The image token is one past the output's last id, as in the released models.
        text_config=text_sizes(tok, vocab_size=len(tok) - 1, num_hidden_layers=4, cross_attention_layers=[1, 3]),
        image_token_index=tok.image_token_id,
    )
    images = hf.MllamaImageProcessor(size={"height": TILE, "width": TILE}, max_image_tiles=4)
    return Parts(config, hf.MllamaProcessor(images, tok, chat_template=templates.markers("<|image|>")))


BUILDERS = {"mllama": mllama}
