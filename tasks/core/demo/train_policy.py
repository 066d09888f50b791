"""Teaches the tiny policy to caption scenes by a hallucinating rule of captions.py: plain supervised fine-tuning."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from tasks.core.demo.captions import PROMPTS, caption, caption_text
from tasks.core.demo.descent import Descent
from tasks.core.demo.policy_model import ASSISTANT, BOS, IMAGE, USER, build_policy, token_id
from tasks.core.demo.scenes import Scene, sample_scene
from tasks.core.demo.train_vision import pixel_values

if TYPE_CHECKING:
    from transformers import CLIPVisionModel, PreTrainedTokenizerFast

LR = 1.5e-3
IGNORED = -100  # label of a token no loss is taken on


def prompt_ids(tokenizer: PreTrainedTokenizerFast, prompt: str, image_tokens: int) -> list[int]:
    """What the processor makes of one user turn with an image, up to the assistant's first token."""
    opening = [token_id(tokenizer, token) for token in (BOS, USER)] + [token_id(tokenizer, IMAGE)] * image_tokens
    return [*opening, *tokenizer(prompt).input_ids, token_id(tokenizer, ASSISTANT)]


def collate(
    tokenizer: PreTrainedTokenizerFast, turns: Sequence[tuple[str, str]], image_tokens: int
) -> dict[str, Tensor]:
    """(prompt, answer) pairs as input_ids, attention_mask and labels, each int64 [B, T]; loss on the answers only."""
    rows: list[tuple[list[int], int]] = []
    for prompt, answer in turns:
        turn = prompt_ids(tokenizer, prompt, image_tokens)
        rows.append(([*turn, *tokenizer(answer).input_ids, tokenizer.eos_token_id], len(turn)))
    longest = max(len(ids) for ids, _ in rows)
    shape = (len(rows), longest)
    ids, mask = torch.full(shape, tokenizer.pad_token_id), torch.zeros(shape, dtype=torch.int64)
    labels = torch.full(shape, IGNORED)
    for row, (tokens, prompt_length) in enumerate(rows):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, : len(tokens)] = 1
        labels[row, prompt_length : len(tokens)] = torch.tensor(tokens[prompt_length:])
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def _batch(
    rng: random.Random, tokenizer: PreTrainedTokenizerFast, size: int, image_tokens: int, rule: str
) -> tuple[list[Scene], dict[str, Tensor]]:
    scenes = [sample_scene(rng) for _ in range(size)]
    turns = [(rng.choice(PROMPTS), caption_text(caption(rng, scene, rule))) for scene in scenes]
    return scenes, collate(tokenizer, turns, image_tokens)


def train_policy(
    tower: CLIPVisionModel | Callable[[PreTrainedTokenizerFast], Any],
    tokenizer: PreTrainedTokenizerFast,
    *,
    steps: int,
    batch: int,
    seed: int,
    rule: str = "committed",
) -> Iterator[tuple[int, float, Any]]:
    """Train from `tower` and random language weights on captions of a rule.

    Yields (step, loss in nats a token, the model) as it goes. In place of a tower, a function builds a policy of another
    architecture.
    """
    torch.manual_seed(seed)
    rng = random.Random(f"{rule} policy {seed}")
    given = isinstance(tower, torch.nn.Module)
    model = (build_policy(cast("CLIPVisionModel", tower), tokenizer) if given else tower(tokenizer)).train()
    image_tokens = model.config.image_seq_length
    descent = Descent(model.parameters(), lr=LR, steps=steps)
    for step in range(1, steps + 1):
        scenes, inputs = _batch(rng, tokenizer, batch, image_tokens, rule)
        loss = model(pixel_values=pixel_values(scenes), **inputs).loss
        descent.step(loss)
        yield step, loss.item(), model
    model.eval()
