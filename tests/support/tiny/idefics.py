"""Idefics' family: images cut into tiles with row and column marks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import transformers as hf

from tests.support.tiny import templates
from tests.support.tiny.words import PATCH, TILE, VISION, Parts, text_sizes, tokenizer


def idefics3(config: Callable[..., Any] = hf.Idefics3Config) -> Parts:
    """Idefics3."""
    tiles = [f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)]
    tok = tokenizer("<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", *tiles)
    patch, factor = PATCH // 2, 2
    built = config(
        vision_config={**VISION, "image_size": TILE, "patch_size": patch},
        text_config=hf.LlamaConfig(**text_sizes(tok)),
        image_token_id=tok.image_token_id,
        scale_factor=factor,
    )
    images = hf.Idefics3ImageProcessor(size={"longest_edge": 2 * TILE}, max_image_size={"longest_edge": TILE})
    per_tile = (TILE // patch // factor) ** 2
    template = templates.markers("<image>")
    return Parts(built, hf.Idefics3Processor(images, tok, image_seq_len=per_tile, chat_template=template))


def smolvlm() -> Parts:
    """With the processor of Idefics3, which differs in videos only: SmolVLM's own needs one more package."""
    return idefics3(hf.SmolVLMConfig)


BUILDERS = {"idefics3": idefics3, "smolvlm": smolvlm}
