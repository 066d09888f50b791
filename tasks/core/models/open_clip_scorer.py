"""Scorers of open_clip, SigLIP among them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from tasks.core.models.scorer import Inputs
from tasks.core.models.scorer_files import NEEDED, ScorerError
from tasks.core.models.torchvision_operators import ensure_torchvision_operators

ensure_torchvision_operators()  # before open_clip

import open_clip  # noqa: E402

_PRECISIONS = {"float32": "fp32", "bfloat16": "pure_bf16", "float16": "pure_fp16"}  # as open_clip names them
_NAMED = 3  # weights that a message lists


@dataclass(frozen=True)
class OpenClipEncoder:
    """A model of open_clip, as `Encoder` specifies."""

    model: Any
    preprocess: Any
    tokenizer: Any
    context_length: int

    def pixels(self, images: Sequence[Image.Image]) -> Inputs:
        """Pixels [N, 3, H, W]."""
        return {"pixels": torch.stack([self.preprocess(image) for image in images])}

    def tokens(self, texts: Sequence[str]) -> Inputs:
        """Token ids [N, context length]."""
        return {"ids": self.tokenizer(list(texts))}

    def encode_images(self, inputs: Inputs) -> torch.Tensor:
        """Vectors [N, D]."""
        vectors: torch.Tensor = self.model.encode_image(inputs["pixels"])
        return vectors

    def encode_texts(self, inputs: Inputs) -> torch.Tensor:
        """Vectors [N, D]."""
        vectors: torch.Tensor = self.model.encode_text(inputs["ids"])
        return vectors

    def count_tokens(self, text: str) -> int:
        """Tokens with start and end."""
        inner = getattr(self.tokenizer, "tokenizer", None)
        return len(inner(text)["input_ids"]) if inner is not None else len(self.tokenizer.encode(text)) + 2


def load_open_clip(checkpoint: str | Path, dtype: str) -> OpenClipEncoder:
    """Load a folder, `hf-hub:ORG/NAME`, or `NAME/PRETRAINED`.

    Raises:
        ScorerError: if open_clip can't load it; a model without trained weights is never returned.
    """
    name, pretrained = str(checkpoint), None
    if Path(name).is_dir():
        name = f"local-dir:{name}"
    elif not name.startswith("hf-hub:"):
        name, _, pretrained = name.partition("/")
    try:
        model, _, preprocess = open_clip.create_model_and_transforms(
            name, pretrained=pretrained or None, precision=_PRECISIONS[dtype], require_pretrained=True
        )
        tokenizer = open_clip.get_tokenizer(name)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise ScorerError(f"{checkpoint}: open_clip cannot load it ({_in_one_line(error)}). {NEEDED}") from error
    length: int = getattr(model, "context_length", None) or getattr(tokenizer, "context_length", None) or 77
    return OpenClipEncoder(model, preprocess, tokenizer, length)


def _in_one_line(error: Exception) -> str:
    """An error's text; of torch's about a state dict, how many weights are missing or left over, and the first of them."""
    text = " ".join(str(error).split())
    parts = []
    for title, words in (("Missing", "missing"), ("Unexpected", "left over")):
        listed = re.search(rf'{title} key\(s\) in state_dict: ((?:"[^"]*"(?:, )?)+)', text)
        names = re.findall(r'"([^"]*)"', listed[1]) if listed else []
        if names:
            shown = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
            parts.append(f"{len(names)} weights are {words}: {shown}")
    if parts:
        return "; ".join(parts) + "; download it again, or take the configuration that belongs to the weights"
    return text if len(text) <= 400 else f"{text[:400]} ..."
