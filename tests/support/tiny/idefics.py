"""Idefics' family: images cut into tiles with row and column marks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import transformers as hf

from tests.support.tiny import templates
from tests.support.tiny.words import EOS, PATCH, TILE, VISION, Parts, chat_tokenizer, text_sizes, tokenizer


def idefics3(config: Callable[..., Any] = hf.Idefics3Config) -> Parts:
    """Idefics3: tiles with row and column marks; a template of markers."""
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
    """SmolVLM with the processor of Idefics3, which differs in videos only; its own needs the package num2words."""
    return idefics3(hf.SmolVLMConfig)


def idefics2() -> Parts:
    """Idefics2: a perceiver makes every image the same number of tokens, whatever its shape."""
    end = "<end_of_utterance>"
    named = {"image_token": "<image>", "image_boundary_token": "<fake_token_around_image>"}
    tok = chat_tokenizer(named, end, bos="<s>", eos=EOS, adds_bos=True)
    latents = 3
    config = hf.Idefics2Config(
        vision_config={**VISION, "image_size": 2 * TILE, "patch_size": PATCH},
        perceiver_config={
            "hidden_size": 64,
            "resampler_n_latents": latents,
            "resampler_depth": 1,
            "resampler_n_heads": 2,
            "resampler_head_dim": 16,
            "num_key_value_heads": 2,
        },
        text_config=hf.MistralConfig(**text_sizes(tok), sliding_window=None),
        image_token_id=tok.image_token_id,
    )
    images = hf.Idefics2ImageProcessor(size={"shortest_edge": TILE, "longest_edge": 2 * TILE}, do_image_splitting=False)
    template = templates.idefics2("<image>")
    return Parts(config, hf.Idefics2Processor(images, tok, image_seq_len=latents, chat_template=template), (end, EOS))


BUILDERS = {"idefics3": idefics3, "smolvlm": smolvlm, "idefics2": idefics2}
