"""Trains the second policy's vision tower to encode where objects are, and its projector to pass that on to the decoder.

The first tower need only know what lies under a patch, and where is nowhere in its features: its position embeddings are a
five hundredth of its patches' length. So they are drawn anew, large enough to be seen, and tower and projector learn both
from a dense label for each patch before any text is read; LLaVA's first stage aligns its projector likewise.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tasks.core.demo.scenes import Scene, sample_scene
from tasks.core.demo.train_vision import CATEGORIES, NOTHING, patch_labels, pixel_values

POSITION_SCALE = 5.0  # standard deviation; a patch's embedding has about 20
SHARPNESS = 20.0  # of the softmax over cosines with the words
LR = 1e-3


def image_features(model: Any, scenes: Sequence[Scene]) -> Tensor:
    """What the decoder reads for each patch: [B, patches, width]."""
    features = model.get_image_features(pixel_values=pixel_values(scenes)).pooler_output
    return torch.stack(list(features))


def train_places(model: Any, words: Tensor, *, steps: int, batch: int, seed: int) -> tuple[float, float]:
    """Train tower and projector in place; `words` holds each category's token id, int64 [60].

    The head that names the places is thrown away. Returned: the shares of object patches of the last batch that were given
    the right word, and the right place.
    """
    rng = random.Random(f"places {seed}")
    tower, projector = model.model.vision_tower, model.model.multi_modal_projector
    with torch.no_grad():
        positions = tower.embeddings.position_embedding.weight
        positions.add_(POSITION_SCALE * torch.randn_like(positions))
    head = nn.Linear(model.config.text_config.hidden_size, tower.embeddings.num_patches)
    optimizer = torch.optim.AdamW([*tower.parameters(), *projector.parameters(), *head.parameters()], lr=LR)
    known = functional.normalize(model.get_input_embeddings().weight[words].detach(), dim=-1)  # [60, width]
    right = (0.0, 0.0)
    for _ in range(steps):
        scenes = [sample_scene(rng) for _ in range(batch)]
        labels = patch_labels(scenes, tower.config.patch_size)
        there = labels != NOTHING
        features = functional.normalize(image_features(model, scenes), dim=-1)[there]  # [objects, width]
        named = SHARPNESS * features @ known.T
        placed = head(features * features.shape[-1] ** 0.5)
        patches = torch.arange(labels.shape[1]).expand_as(labels)[there]
        loss = functional.cross_entropy(named, labels[there]) + functional.cross_entropy(placed, patches)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        hits = (named.argmax(-1) == labels[there], placed.argmax(-1) == patches)
        right = (hits[0].float().mean().item(), hits[1].float().mean().item())
    model.zero_grad(set_to_none=True)
    return right


def first_tokens(tokenizer: Any) -> Tensor:
    """The id of each category's first token within a sentence: int64 [60]."""
    return torch.tensor([tokenizer(f" {name}").input_ids[0] for name in CATEGORIES])
