"""What a profile sets of a policy beside its weights. No torch here: these settings are part of a stage's key."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class PolicySettings:
    """How prompts are written, images resized and tokens drawn; all of it changes what a policy answers."""

    template: str = "{}"  # arguments of the chat template, a JSON object
    system_prompt: str | None = None
    max_pixels: int | None = None  # largest image that the processor makes; None: its own
    top_k: int | None = None  # likeliest tokens that are drawn from, 0 for all; None: the checkpoint's

    @property
    def template_arguments(self) -> dict[str, Any]:
        """`template` as a mapping."""
        return dict(json.loads(self.template))


DEFAULTS = PolicySettings()
