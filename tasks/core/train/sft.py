"""Supervised fine-tuning on captions: cross-entropy of the answer's tokens and its end, LoRA merged or all weights.

The mean is over all answer tokens of the effective batch. Departs from the released `sft_training.py`, whose labels mask only
padding and image tokens, so that it trains on the user's prompt as well. What the weights were and are is compared, since an
adapter that silently does nothing is a known failure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tasks.core.models.policy import Policy
from tasks.core.train.answers import Picture, Turn, answer_tokens
from tasks.core.train.step_trainer import StepTrainer, train
from tasks.core.train.steps import Objective, Row, TrainingRun


@dataclass(frozen=True)
class Example:
    """One caption to learn, or a conversation about an image."""

    image: Picture
    prompt: str
    answer: str
    later: tuple[tuple[str, str], ...] = ()  # (prompt, answer) of later turns, each read after those before it


def train_sft(policy: Policy, examples: Sequence[Example], run: TrainingRun) -> dict[str, float]:
    """Train `policy.model` in place (adapters are merged into it), from the last checkpoint under `run.work` on.

    Args:
        policy: loaded model and processor.
        examples: at least one.
        run: how and where.

    Returns:
        `steps`, `loss_first`, `loss_last`, `relative_change` of the weights that learn, `untrainable` (examples that the
        processor refuses), `micro_batch_size`.

    Raises:
        FinetuneError: if no example can be read, no weight changed, weights are no longer numbers, or memory runs out.
    """

    def rows(items: Sequence[int], trainer: StepTrainer) -> list[Row]:
        return [caption_row(policy, item, examples[item]) for item in items]

    return train(policy, run, Objective(rows, cross_entropy, len(examples), run.recipe.batch_size))[1]


def caption_row(policy: Policy, item: int, example: Example) -> Row:
    """An example as tokens, the prompts of later turns given; it weighs as many as its answers have."""
    tokens = list(answer_tokens(policy, example.answer))
    given: set[int] = set()
    for prompt, answer in example.later:
        between = policy.next_turn_ids(prompt)
        given.update(range(len(tokens), len(tokens) + len(between)))
        tokens += [*between, *answer_tokens(policy, answer)]
    turn = Turn(example.image, example.prompt, tuple(tokens), given=frozenset(given))
    return Row(item, (turn,), weight=len(tokens) - len(given))


def cross_entropy(log_probs: torch.Tensor, rows: Sequence[Row]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Summed over the tokens [B, T]."""
    return -log_probs.sum(), {}
