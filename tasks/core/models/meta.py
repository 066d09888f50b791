"""Models on torch's meta device: their modules and shapes, without weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from tasks.core.models.torchvision_operators import ensure_torchvision_operators

ensure_torchvision_operators()  # before transformers and open_clip

from transformers import AutoConfig, AutoModelForImageTextToText  # noqa: E402


def meta_model(config: Mapping[str, Any]) -> Any:
    """The image-text-to-text model of a configuration's fields, on the meta device.

    Raises:
        ValueError, KeyError, TypeError, AttributeError, ImportError: transformers knows no such model.
    """
    fields = dict(config)
    built = AutoConfig.for_model(fields.pop("model_type"), **fields)
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(built)


def open_clip_config(name: str) -> dict[str, Any] | None:
    """The configuration that open_clip ships for a model; None where it has none."""
    import open_clip

    return open_clip.get_model_config(name)


def open_clip_parameters(config: Mapping[str, Any]) -> int:
    """Number of parameters of an open_clip model."""
    from open_clip.model import CLIP

    known = {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"}
    with torch.device("meta"):
        model = CLIP(**{name: value for name, value in config.items() if name in known})
    return sum(parameter.numel() for parameter in model.parameters())
