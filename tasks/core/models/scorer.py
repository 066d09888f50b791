"""The scorer: image-text cosine by open_clip, each image embedded once, all sentences batched.

Unlike the released scripts (one forward a sentence, the image encoded again each time, a record dropped when a sentence passes
77 tokens), a long sentence is cut, and the cut is reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tasks.core.models.torchvision_operators import ensure_torchvision_operators
from tasks.core.models.weight_files import CheckpointError

ensure_torchvision_operators()  # before open_clip

import open_clip  # noqa: E402


class ScorerError(CheckpointError):
    """A checkpoint that can't be used as a scorer."""


@dataclass(frozen=True)
class Scorer:
    """A loaded open_clip model; `digest` names its weights."""

    model: Any
    preprocess: Any
    tokenizer: Any
    context_length: int
    digest: str

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @torch.inference_mode()
    def embed_images(self, images: Sequence[Image.Image], batch_size: int = 64) -> np.ndarray:
        """Unit vectors [N, D], float32."""
        parts = []
        for start in range(0, len(images), batch_size):
            pixels = torch.stack([self.preprocess(image) for image in images[start : start + batch_size]])
            vectors = self.model.encode_image(_enough_rows(pixels).to(self.device), normalize=True)
            parts.append(vectors[: len(pixels)].float().cpu().numpy())
        return np.concatenate(parts) if parts else np.zeros((0, 1), dtype=np.float32)

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str], batch_size: int = 256) -> np.ndarray:
        """Unit vectors [N, D], float32; longer texts are cut at the context length."""
        parts = []
        for start in range(0, len(texts), batch_size):
            tokens = self.tokenizer(list(texts[start : start + batch_size]))
            vectors = self.model.encode_text(_enough_rows(tokens).to(self.device), normalize=True)
            parts.append(vectors[: len(tokens)].float().cpu().numpy())
        return np.concatenate(parts) if parts else np.zeros((0, 1), dtype=np.float32)

    def is_cut(self, text: str) -> bool:
        """Whether the text is longer than the model's context, start and end tokens included."""
        inner = getattr(self.tokenizer, "tokenizer", None)
        length = len(inner(text)["input_ids"]) if inner is not None else len(self.tokenizer.encode(text)) + 2
        return length > self.context_length


def _enough_rows(batch: torch.Tensor) -> torch.Tensor:
    """At least 8 rows, the last one repeated: a product with a single row takes another path, with other last bits."""
    missing = 8 - len(batch)
    return torch.cat([batch, batch[-1:].expand(missing, *batch.shape[1:])]) if missing > 0 else batch


def cosines(images: np.ndarray, texts: np.ndarray, image_of_text: Sequence[int]) -> np.ndarray:
    """Cosine [T] of text t with image `image_of_text[t]`; images [N, D] and texts [T, D] are unit vectors."""
    if texts.shape[0] != len(image_of_text) or (len(texts) and images.shape[1] != texts.shape[1]):
        raise ValueError(
            f"images {images.shape}, texts {texts.shape}, {len(image_of_text)} indices: want [N,D], [T,D], T"
        )
    if not len(texts):
        return np.zeros(0)
    return np.einsum("td,td->t", images[np.asarray(image_of_text)].astype(np.float64), texts.astype(np.float64))


def load_scorer(checkpoint: str | Path, *, digest: str, device: str = "cpu") -> Scorer:
    """Load an open_clip model: a folder, `hf-hub:ORG/NAME`, or `NAME/PRETRAINED`.

    Raises:
        ScorerError: if open_clip can't load it.
    """
    name, pretrained = str(checkpoint), None
    if Path(name).is_dir():
        name = f"local-dir:{name}"
    elif not name.startswith("hf-hub:"):
        name, _, pretrained = name.partition("/")
    try:
        model, _, preprocess = open_clip.create_model_and_transforms(name, pretrained=pretrained or None)
        tokenizer = open_clip.get_tokenizer(name)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise ScorerError(
            f"{checkpoint}: open_clip cannot load it ({error}). Needed: a folder with open_clip_config.json and "
            "open_clip_model.safetensors, hf-hub:ORG/NAME, or NAME/PRETRAINED (see open_clip.list_pretrained())"
        ) from error
    length: int = getattr(model, "context_length", None) or getattr(tokenizer, "context_length", None) or 77
    return Scorer(model.to(device).eval().requires_grad_(False), preprocess, tokenizer, length, digest)
