"""Positions of prompts, whatever the model's rotary axes are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def prompt_positions(model: Any, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Positions of a left-padded prompt: [1, B, L], or [3, B, L] where image tokens have time, height and width (M-RoPE)."""
    if hasattr(model.model, "get_rope_index"):
        known = ("input_ids", "mm_token_type_ids", "image_grid_thw", "attention_mask")
        positions: torch.Tensor = model.model.get_rope_index(**{n: inputs[n] for n in known if n in inputs})[0]
        return positions
    return (inputs["attention_mask"].long().cumsum(dim=1) - 1).clamp(min=0)[None]


def as_position_ids(positions: torch.Tensor) -> torch.Tensor:
    """[axes, B, L] as the model wants it: [B, L] where there is one axis."""
    return positions[0] if len(positions) == 1 else positions
