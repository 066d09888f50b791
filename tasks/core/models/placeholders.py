"""Which of a policy's tokens stand for images, videos and sound. They belong in prompts only, so no sampler may draw them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

_MEDIUM = r"(?:image|img|video|audio|vision|boi|eoi|boa|eoa|bov|eov)"
_ID_NAME = re.compile(rf"(?:[a-z0-9]+_)*{_MEDIUM}(?:_[a-z0-9]+)*_token(?:_[a-z0-9]+)?_(?:id|index)")
_TOKEN_NAME = re.compile(rf"(?:[a-z0-9]+_)*{_MEDIUM}(?:_[a-z0-9]+)*_(?:token|tag)")
_TILE = re.compile(r"<\|?(?:[a-z]+_)?row_\d+_col_\d+\|?>")  # one token for each place of a tile


def placeholder_tokens(config: Any, processor: Any) -> dict[int, str]:
    """Ids of placeholders with their texts, from what the configuration, the processor and its tokenizer call so."""
    tokenizer = processor.tokenizer
    vocabulary = tokenizer.get_vocab()
    named = {vocabulary[text]: text for text in _named_texts(processor, tokenizer) if text in vocabulary}
    tiles = {id_: text for text, id_ in tokenizer.get_added_vocab().items() if _TILE.fullmatch(text)}
    ids = set(_named_ids(config)) | set(_named_ids(config.get_text_config()))
    by_config = {id_: str(tokenizer.convert_ids_to_tokens(id_)) for id_ in ids if 0 <= id_ < len(tokenizer)}
    by_config |= {id_: "" for id_ in ids if id_ >= len(tokenizer)}
    return by_config | named | tiles


def image_marks(config: Any, processor: Any) -> frozenset[int]:
    """Ids that may stand for the image in a rendered prompt: what the model replaces by features, and what the processor
    replaces by that (Gemma 3's <start_of_image>, Aya's and Ovis2's <image>).
    """
    ids = (getattr(config, name, None) for name in ("image_token_id", "image_token_index"))
    text = str(getattr(processor, "image_token", ""))  # an AddedToken, or its text
    written = processor.tokenizer.get_vocab().get(text)
    return frozenset(id_ for id_ in (*ids, written) if isinstance(id_, int))


def _named_ids(config: Any) -> Iterator[int]:
    for name, value in vars(config).items():
        if _ID_NAME.fullmatch(name):
            yield from (id_ for id_ in (value if isinstance(value, list) else [value]) if isinstance(id_, int))


def _named_texts(processor: Any, tokenizer: Any) -> Iterator[str]:
    for source in (vars(processor), vars(tokenizer), tokenizer.special_tokens_map):
        for name, value in source.items():
            if isinstance(name, str) and _TOKEN_NAME.fullmatch(name):
                yield str(getattr(value, "content", value))  # an AddedToken, or its text
