"""Pixtral's tower, which keeps an image's shape: rows of tokens with a break after each; in LLaVA and in Mistral 3."""

from __future__ import annotations

import transformers as hf

from tests.support.tiny import templates
from tests.support.tiny.words import EOS, PATCH, TILE, VISION, Parts, chat_tokenizer, text_sizes


def _tokenizer() -> hf.PreTrainedTokenizerFast:
    others = ("[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[IMG_BREAK]", "[IMG_END]")
    return chat_tokenizer({"image_token": "[IMG]"}, *others, bos="<s>", eos=EOS, adds_bos=True)


def _processor(tok: hf.PreTrainedTokenizerFast, patch: int, merge: int) -> hf.PixtralProcessor:
    images = hf.PixtralImageProcessor(size={"longest_edge": 2 * TILE}, patch_size={"height": patch, "width": patch})
    template = templates.instruction("[IMG]")
    return hf.PixtralProcessor(images, tok, patch_size=patch, spatial_merge_size=merge, chat_template=template)


def pixtral() -> Parts:
    """Pixtral, which is saved as a LLaVA."""
    tok = _tokenizer()
    config = hf.LlavaConfig(
        vision_config=hf.PixtralVisionConfig(**VISION, image_size=2 * TILE, patch_size=PATCH),
        text_config=hf.MistralConfig(**text_sizes(tok), sliding_window=None),
        image_token_index=tok.image_token_id,
        image_seq_length=1,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    return Parts(config, _processor(tok, PATCH, 1))


def mistral3() -> Parts:
    """Mistral Small 3.1: two by two patches are merged to a token."""
    tok = _tokenizer()
    config = hf.Mistral3Config(
        vision_config=hf.PixtralVisionConfig(**VISION, image_size=2 * TILE, patch_size=PATCH // 2),
        text_config=hf.MistralConfig(**text_sizes(tok), sliding_window=None, tie_word_embeddings=False),
        image_token_index=tok.image_token_id,
        spatial_merge_size=2,
        tie_word_embeddings=False,
    )
    return Parts(config, _processor(tok, PATCH // 2, 2))


BUILDERS = {"pixtral": pixtral, "mistral3": mistral3}
