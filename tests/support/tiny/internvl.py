"""InternVL: an image in tiles of equal size and its thumbnail, shuffled to fewer tokens."""

from __future__ import annotations

import transformers as hf

from tests.support.tiny import templates
from tests.support.tiny.words import PATCH, TILE, VISION, Parts, byte_tokenizer, text_sizes


def internvl() -> Parts:
    """InternVL 3: tiles and a thumbnail between a start and an end token; ChatML; two end tokens."""
    end, last = "<|im_end|>", "<|endoftext|>"
    named = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tok = byte_tokenizer(hf.Qwen2Tokenizer, named, "<|im_start|>", eos=end, pad=last)
    per_tile = (TILE // (PATCH // 2) // 2) ** 2
    config = hf.InternVLConfig(
        vision_config=hf.InternVLVisionConfig(**VISION, image_size=[TILE, TILE], patch_size=[PATCH // 2, PATCH // 2]),
        text_config=hf.Qwen2Config(**text_sizes(tok), tie_word_embeddings=False),
        image_token_id=tok.context_image_token_id,
        image_seq_length=per_tile,
        tie_word_embeddings=False,
    )
    images = hf.GotOcr2ImageProcessor(
        size={"height": TILE, "width": TILE}, crop_to_patches=True, min_patches=1, max_patches=4
    )
    processor = hf.InternVLProcessor(
        images,
        tok,
        hf.InternVLVideoProcessor(size={"height": TILE, "width": TILE}),
        image_seq_length=per_tile,
        chat_template=templates.chatml("<IMG_CONTEXT>\n"),
    )
    return Parts(config, processor, (end, last))


BUILDERS = {"internvl": internvl}
