"""Pretrains the vision tower both tiny models start from: which category lies under each patch?

A dense label for every patch teaches sixty glyphs in minutes on two cores, where a caption loss alone would take hours.
The head that answers is thrown away.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tasks.core.demo.descent import Descent
from tasks.core.demo.glyphs import GLYPHS
from tasks.core.demo.scenes import CELL, GRID, SIDE, Scene, draw_scene, sample_scene
from tasks.core.models.torchvision_operators import ensure_torchvision_operators

ensure_torchvision_operators()  # before transformers

from transformers import CLIPVisionConfig, CLIPVisionModel  # noqa: E402

PATCH = 32  # px: as large as a cell of the grid, so that nine image tokens hold it all and decoding is fast
CATEGORIES: tuple[str, ...] = tuple(GLYPHS)
NOTHING = len(CATEGORIES)  # the label of a patch no object lies under
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP's own, so that any CLIP preprocessing fits
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)


def vision_config(*, width: int = 128, layers: int = 3, patch: int = PATCH) -> CLIPVisionConfig:
    """The shape of the tiny vision tower, for scenes of SIDE px."""
    return CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        image_size=SIDE,
        patch_size=patch,
        projection_dim=width,
        hidden_act="gelu",
    )


def pixel_values(scenes: Sequence[Scene]) -> Tensor:
    """Draw and normalise scenes: float32 [B, 3, SIDE, SIDE]."""
    pixels = torch.from_numpy(np.stack([np.asarray(draw_scene(scene)) for scene in scenes]))
    unit = pixels.permute(0, 3, 1, 2).float() / 255
    mean, std = torch.tensor(PIXEL_MEAN).view(1, 3, 1, 1), torch.tensor(PIXEL_STD).view(1, 3, 1, 1)
    return (unit - mean) / std


def presence(scenes: Sequence[Scene]) -> Tensor:
    """Which categories each scene holds: bool [B, 60]."""
    table = torch.zeros(len(scenes), len(CATEGORIES), dtype=torch.bool)
    for row, scene in enumerate(scenes):
        table[row, [CATEGORIES.index(name) for name in scene.categories]] = True
    return table


def patch_labels(scenes: Sequence[Scene], patch: int) -> Tensor:
    """The category whose grid cell each patch's centre lies in, or NOTHING: int64 [B, patches]."""
    side = SIDE // patch
    labels = torch.full((len(scenes), GRID * GRID), NOTHING)
    for row, scene in enumerate(scenes):
        for placed in scene.objects:
            labels[row, placed.cell] = CATEGORIES.index(placed.category)
    centres = (torch.arange(side) * patch + patch // 2) // CELL
    cells = centres[:, None] * GRID + centres[None, :]
    return labels[:, cells.flatten()]


def train_vision(
    *,
    steps: int,
    batch: int,
    seed: int,
    patch: int = PATCH,
    lr: float = 1.5e-3,
    build: Callable[[], Any] | None = None,
) -> Iterator[tuple[int, float, Any]]:
    """Train a tower from scratch, yielding (step, share of object patches named right, the tower) as it goes.

    `build` makes another tower than CLIP's; the last of its states are those of the patches.
    """
    torch.manual_seed(seed)
    rng = random.Random(f"vision {seed}")
    tower = (build() if build else CLIPVisionModel(vision_config(patch=patch))).train()
    head = nn.Linear(tower.config.hidden_size, NOTHING + 1)
    descent = Descent([*tower.parameters(), *head.parameters()], lr=lr, steps=steps)
    for step in range(1, steps + 1):
        scenes = [sample_scene(rng) for _ in range(batch)]
        labels = patch_labels(scenes, patch)
        states = tower(pixel_values(scenes)).last_hidden_state
        states = states[:, -labels.shape[1] :]  # [B, patches, width], no class token
        logits = head(states)
        balance = torch.where(labels == NOTHING, 0.2, 1.0)
        loss = (nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none") * balance).mean()
        descent.step(loss)
        right = (logits.argmax(-1) == labels)[labels != NOTHING].float().mean()
        yield step, right.item(), tower
