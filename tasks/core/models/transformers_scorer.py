"""Scorers of transformers: CLIP, SigLIP and SigLIP 2, from a folder with `config.json` and its processor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from tasks.core.models.scorer import Inputs
from tasks.core.models.scorer_files import ScorerError
from tasks.core.models.torchvision_operators import ensure_torchvision_operators

ensure_torchvision_operators()  # before transformers

from transformers import AutoModel, AutoProcessor  # noqa: E402
from transformers.utils import logging as transformers_logging  # noqa: E402

transformers_logging.disable_progress_bar()

_NAMED = 3  # weights that a message lists


@dataclass(frozen=True)
class TransformersEncoder:
    """A model of transformers, as `Encoder` specifies."""

    model: Any
    processor: Any
    context_length: int

    def pixels(self, images: Sequence[Image.Image]) -> Inputs:
        """Pixels and, for SigLIP 2 with its own image sizes, the mask and shape of patches."""
        return dict(self.processor(images=list(images), return_tensors="pt"))

    def tokens(self, texts: Sequence[str]) -> Inputs:
        """Token ids [N, context length], with a mask for CLIP.

        SigLIP was trained on texts padded to the whole context and reads its last position, so it gets no mask. CLIP reads the
        first end token; what follows is padding too, so that a text's vector doesn't depend on the others of its batch.
        """
        tokens = self.processor.tokenizer(
            list(texts),
            padding="max_length",
            truncation=True,
            max_length=self.context_length,
            return_tensors="pt",
            split_special_tokens=True,  # a sentence with the text of an end token is a text, not the end
        )
        names = ("input_ids", "attention_mask") if self.model.config.model_type == "clip" else ("input_ids",)
        return {name: tokens[name] for name in names}

    def encode_images(self, inputs: Inputs) -> torch.Tensor:
        """Vectors [N, D]."""
        vectors: torch.Tensor = self.model.get_image_features(**inputs).pooler_output
        return vectors

    def encode_texts(self, inputs: Inputs) -> torch.Tensor:
        """Vectors [N, D]."""
        vectors: torch.Tensor = self.model.get_text_features(**inputs).pooler_output
        return vectors

    def count_tokens(self, text: str) -> int:
        """Tokens with start and end."""
        return len(self.processor.tokenizer(text, split_special_tokens=True, verbose=False)["input_ids"])


def load_transformers(folder: str | Path, dtype: str) -> TransformersEncoder:
    """Load a folder of `save_pretrained`.

    Raises:
        ScorerError: transformers can't load it, or weights are missing or left over.
    """
    try:
        with _quiet():
            model, info = AutoModel.from_pretrained(
                folder, dtype=getattr(torch, dtype), output_loading_info=True, ignore_mismatched_sizes=True
            )
        processor = AutoProcessor.from_pretrained(folder)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        text = " ".join(str(error).split())
        raise ScorerError(
            f"{folder}: transformers cannot load it as a scorer ({text if len(text) <= 400 else f'{text[:400]} ...'}). "
            "Needed: weights, config.json, preprocessor and tokenizer files of one checkpoint; some tokenizers need a package, "
            "which the message names"
        ) from error
    faults = {
        "missing": info["missing_keys"],
        "left over": info["unexpected_keys"],
        "of another shape": [name for name, *_ in info["mismatched_keys"]],
    }
    parts = [f"{len(names)} weights are {words}: {_listed(names)}" for words, names in faults.items() if names]
    if parts:
        raise ScorerError(
            f"{folder}: {'; '.join(parts)}. They would be drawn at random or ignored; download the checkpoint again, or take "
            "the config.json that belongs to its weights"
        )
    if not all(hasattr(processor, part) for part in ("image_processor", "tokenizer")):
        raise ScorerError(
            f"{folder}: its processor is {type(processor).__name__}; needed: "
            "preprocessor_config.json and tokenizer files beside the weights"
        )
    length = min(model.config.text_config.max_position_embeddings, processor.tokenizer.model_max_length)
    return TransformersEncoder(model, processor, int(length))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's own table of weights that don't fit: they are refused in a line."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:_NAMED]) + (", ..." if len(ordered) > _NAMED else "")
