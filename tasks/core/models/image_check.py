"""Whether a policy's processor takes an image, by the image's size, before any model is loaded.

Processors refuse by size only (an aspect ratio above their limit, a side under a patch), since every image reaches them as RGB.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from tasks.core.models.chat import Chat
from tasks.core.models.checkpoint_checks import PolicyError
from tasks.core.models.torchvision_operators import ensure_torchvision_operators

PROMPT = "Describe the image."


class UnusableImage(ValueError):
    """An image that a policy's processor refuses."""


class ImageCheck:
    """Runs a processor on a blank image of each size once."""

    def __init__(self, processor: Any) -> None:
        self._chat = Chat(processor, {}, None, ())
        self.problem = lru_cache(maxsize=None)(self._problem)

    @classmethod
    def of(cls, folder: str | Path, *, trust_remote_code: bool = False) -> ImageCheck:
        """The check of a checkpoint's processor.

        Raises:
            PolicyError: it has none.
        """
        ensure_torchvision_operators()
        from transformers import AutoProcessor

        try:
            processor = AutoProcessor.from_pretrained(folder, trust_remote_code=trust_remote_code)
        except (OSError, ValueError, KeyError, ImportError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise PolicyError(f"{folder}: no processor that transformers can load ({reason[:300]})") from error
        return cls(processor)

    def _problem(self, width: int, height: int) -> str | None:
        """Why an image of this size (pixels) is refused, in a line; None: it is taken."""
        try:
            self._chat.inputs([Image.new("RGB", (width, height))], [PROMPT], answer_next=True)
        except Exception as error:  # noqa: BLE001 - whatever a processor raises, it is about this image
            kind = type(self._chat.processor.image_processor).__name__
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            return f"{width}x{height} pixels: the policy's {kind} refuses it: {reason}"
        return None
