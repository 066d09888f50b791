"""EXAONE 4.5: Qwen2.5-VL's tower with shared heads before a language model with sliding windows."""

from __future__ import annotations

import transformers as hf

from tests.support.tiny import qwen, templates
from tests.support.tiny.words import PATCH, TILE, Parts, byte_tokenizer, text_sizes

WINDOW = 6  # tokens; shorter than every prompt


def exaone4_5() -> Parts:
    """EXAONE 4.5: no rotation in the layers with full attention, no axes for height and width."""
    start, image, stop, video, end = "<vision>", "<|image_pad|>", "</vision>", "<|video_pad|>", "[|endofturn|]"
    named = {"image_token": image, "video_token": video}
    others = ("[|system|]", "[|user|]", "[|assistant|]", start, stop)
    tok = byte_tokenizer(hf.Qwen2Tokenizer, named, *others, eos=end, pad="<|endoftext|>")
    config = hf.Exaone4_5_Config(
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "num_key_value_heads": 1,
            "patch_size": PATCH,
            "out_hidden_size": 64,
            "window_size": 2 * TILE,
            "fullatt_block_indexes": [1],
        },
        text_config=hf.Exaone4Config(
            **text_sizes(tok),
            sliding_window=WINDOW,
            layer_types=["sliding_attention", "sliding_attention", "full_attention"],
            tie_word_embeddings=False,
        ),
        image_token_id=tok.image_token_id,
        video_token_id=tok.video_token_id,
    )
    template = templates.exaone(f"{start}{image}{stop}")
    processor = hf.Exaone4_5_Processor(qwen.images(), tok, hf.Qwen2VLVideoProcessor(), chat_template=template)
    return Parts(config, processor, (end,))


BUILDERS = {"exaone4_5": exaone4_5}
