"""Aria and Ovis2: experts behind a projector with queries, and images as mixtures of words of their own."""

from __future__ import annotations

import transformers as hf

from tests.support.tiny import templates
from tests.support.tiny.words import PATCH, TILE, Parts, byte_tokenizer, chat_tokenizer, text_sizes


def aria() -> Parts:
    """Aria: grouped experts, and a projector whose number of queries depends on the image's size."""
    end = "<|im_end|>"
    tok = chat_tokenizer({"image_token": "<|img|>"}, "<|im_start|>", bos="<s>", eos=end)
    side, patch, queries = 980, 196, 3  # pixels; its processor makes every image as large
    text = hf.AriaTextConfig(**text_sizes(tok), moe_num_experts=4, moe_topk=2, moe_num_shared_experts=1)
    text.intermediate_size = 32
    config = hf.AriaConfig(
        vision_config={
            "model_type": "idefics3_vision",
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": side,
            "patch_size": patch,
        },
        text_config=text,
        projector_patch_to_query_dict={(side // patch) ** 2: queries},
        image_token_index=tok.image_token_id,
    )
    images = hf.AriaImageProcessor(max_image_size=side)
    template = templates.chatml("<|img|>")
    processor = hf.AriaProcessor(images, tok, chat_template=template, size_conversion={side: queries})
    return Parts(config, processor, (end,))


def ovis2() -> Parts:
    """Ovis2: every patch is a mixture of an image vocabulary's embeddings; tiles in rows and columns."""
    end, last = "<|im_end|>", "<|endoftext|>"
    marks = ("<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>")
    tok = byte_tokenizer(
        hf.Qwen2Tokenizer, {"image_token": "<IMG_ATOM>"}, "<|im_start|>", "<image>", *marks, eos=end, pad=last
    )
    per_tile = (TILE // PATCH) ** 2
    config = hf.Ovis2Config(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": TILE,
            "patch_size": PATCH,
            "vocab_size": 20,
        },
        text_config=hf.Qwen2Config(**text_sizes(tok), tie_word_embeddings=False),
        image_token_id=tok.image_token_id,
        visual_indicator_token_ids=tok.convert_tokens_to_ids(list(marks)),
        vocab_size=len(tok),
        hidden_size=64,
        tie_word_embeddings=False,
    )
    images = hf.Ovis2ImageProcessor(
        size={"height": TILE, "width": TILE}, crop_to_patches=True, max_patches=4, use_covering_area_grid=False
    )
    template = templates.chatml("<image>\n")
    processor = hf.Ovis2Processor(images, tok, chat_template=template, image_seq_length=per_tile)
    return Parts(config, processor, (end, last))


BUILDERS = {"aria": aria, "ovis2": ovis2}
