"""The scorer: image-text cosine, each image embedded once, all sentences batched.

Unlike the released scripts (one forward a sentence, the image encoded again each time, a record dropped when a sentence passes
77 tokens), a long sentence is cut, and the cut is reported. Models come from open_clip or from transformers (CLIP, SigLIP);
what differs is behind `Encoder`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image

from tasks.core.models.scorer_files import ScorerError, check_scorer_files, scorer_format

Inputs = Mapping[str, torch.Tensor]  # of a model, [N, ...] each


class Encoder(Protocol):
    """An image-text model with its preprocessing."""

    @property
    def model(self) -> Any:
        """The module with the weights."""

    @property
    def context_length(self) -> int:
        """Tokens of a text that are read, start and end included."""

    def pixels(self, images: Sequence[Image.Image]) -> Inputs:
        """Inputs of N images, on the CPU."""

    def tokens(self, texts: Sequence[str]) -> Inputs:
        """Inputs of N texts, on the CPU, cut at the context length; their width never depends on the batch."""

    def encode_images(self, inputs: Inputs) -> torch.Tensor:
        """Vectors [N, D] in the space that images and texts share."""

    def encode_texts(self, inputs: Inputs) -> torch.Tensor:
        """Vectors [N, D] in the space that images and texts share."""

    def count_tokens(self, text: str) -> int:
        """Tokens of the whole text, start and end included."""


@dataclass(frozen=True)
class Scorer:
    """A loaded image-text model; `digest` names its weights."""

    encoder: Encoder
    digest: str

    @property
    def model(self) -> Any:
        """The module with the weights."""
        return self.encoder.model

    @property
    def context_length(self) -> int:
        """Tokens of a text that are read, start and end included."""
        return self.encoder.context_length

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    def embed_images(self, images: Sequence[Image.Image], batch_size: int = 64) -> np.ndarray:
        """Unit vectors [N, D], float32.

        Raises:
            ScorerError: a vector isn't finite.
        """
        return self._embed(images, self.encoder.pixels, self.encoder.encode_images, batch_size)

    def embed_texts(self, texts: Sequence[str], batch_size: int = 256) -> np.ndarray:
        """Unit vectors [N, D], float32; longer texts are cut at the context length.

        Raises:
            ScorerError: a vector isn't finite.
        """
        return self._embed(texts, self.encoder.tokens, self.encoder.encode_texts, batch_size)

    @torch.inference_mode()
    def _embed(
        self,
        items: Sequence[Any],
        prepare: Callable[[Sequence[Any]], Inputs],
        encode: Callable[[Inputs], torch.Tensor],
        batch_size: int,
    ) -> np.ndarray:
        weight = next(self.model.parameters())
        parts = []
        for start in range(0, len(items), batch_size):
            batch = items[start : start + batch_size]
            inputs = {
                name: _enough_rows(value).to(weight.device, weight.dtype if value.is_floating_point() else None)
                for name, value in prepare(batch).items()
            }
            # Scaled in float32, whatever the weights are: a unit vector of bfloat16 is 0.4 % off.
            vectors = torch.nn.functional.normalize(encode(inputs).float(), dim=-1)
            if not bool(torch.isfinite(vectors).all()):
                raise ScorerError(
                    f"{type(self.model).__name__} gave vectors that are not finite, with weights of {weight.dtype}: "
                    "set scorer.dtype to bfloat16 or float32"
                )
            parts.append(vectors[: len(batch)].cpu().numpy())
        return np.concatenate(parts) if parts else np.zeros((0, 1), dtype=np.float32)

    def is_cut(self, text: str) -> bool:
        """Whether the text is longer than the model's context, start and end tokens included."""
        return self.encoder.count_tokens(text) > self.context_length


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


def load_scorer(checkpoint: str | Path, *, digest: str, dtype: str = "float32", device: str = "cpu") -> Scorer:
    """Load an image-text model: a folder of open_clip or of transformers, `hf-hub:ORG/NAME`, or open_clip's `NAME/PRETRAINED`.

    Args:
        checkpoint: which; a hub id goes to open_clip here (a reference to one leads to its snapshot's folder).
        digest: names its weights.
        dtype: precision of weights and forwards: float32, bfloat16 or float16. Vectors are float32 in any case.
        device: where to.

    Raises:
        ScorerError: in one line, if it can't be loaded, or if weights are missing or left over.
    """
    folder = Path(checkpoint)
    if folder.is_dir():
        check_scorer_files(folder)
    # Each library is imported only where it is needed: open_clip takes seconds.
    if folder.is_dir() and scorer_format(folder) == "transformers":
        from tasks.core.models.transformers_scorer import load_transformers

        encoder: Encoder = load_transformers(folder, dtype)
    else:
        from tasks.core.models.open_clip_scorer import load_open_clip

        encoder = load_open_clip(checkpoint, dtype)
    encoder.model.to(device).eval().requires_grad_(False)
    return Scorer(encoder, digest)
