"""What all ways to train a policy share: what learns, how it is kept and taken up again, and whether it moved at all.

What the weights were and are is compared, since an adapter that silently does nothing is a known failure.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tasks.core.models.value import LINEAR_LAYERS


class FinetuneError(RuntimeError):
    """Fine-tuning that failed: nothing to learn from, no weight changed, or weights that are no longer numbers."""


@dataclass(frozen=True)
class Recipe:
    """How to train, whatever the objective."""

    train: str  # full (the vision tower stays frozen, as LLaVA trains) or lora
    lr: float  # linear decay after the warm-up
    epochs: float
    batch_size: int  # the effective one
    warmup_share: float  # of all steps
    lora_rank: int  # alpha is twice that
    checkpoint_steps: int  # steps between resume points
    seed: int  # order of the examples and start of the adapters
    micro_batch_size: int | None = None  # rows read at once; None: as many as fit


def steps_of(examples: int, batch_size: int, epochs: float) -> int:
    """Optimizer steps of a fine-tuning: the last batch of an epoch may be short."""
    return math.ceil(epochs * math.ceil(examples / batch_size))


def is_language(name: str) -> bool:
    """Whether a parameter may learn: all but the vision tower, as LLaVA trains."""
    return "vision" not in name


def let_language_learn(model: Any) -> None:
    """Put `model` in training mode with gradients for what may learn."""
    model.train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_language(name))


def adapters(rank: int) -> Any:
    """PEFT's configuration of LoRA on every linear layer of the language model; alpha is twice the rank."""
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=LINEAR_LAYERS)


def weights_before(model: Any) -> dict[str, torch.Tensor]:
    """Copies of what may learn, on the host: beside a 7B model in training a GPU has no room for a second one."""
    return {n: p.detach().to("cpu", copy=True) for n, p in model.named_parameters() if is_language(n)}


def settle(trained: Any, before: dict[str, torch.Tensor], recipe: Recipe) -> float:
    """Merge adapters, freeze, and return the relative change of the weights that may learn.

    Raises:
        FinetuneError: if no weight changed, or weights are no longer numbers.
    """
    merged = trained.merge_and_unload() if recipe.train == "lora" else trained
    merged.eval().requires_grad_(False)
    change = _relative_change(before, dict(merged.named_parameters()))
    if not math.isfinite(change):
        raise FinetuneError(f"fine-tuning diverged: weights are no longer numbers; lower finetune.lr ({recipe.lr:g})")
    if not change > 0:
        raise FinetuneError("fine-tuning left every weight as it was; check finetune.lr and finetune.train")
    return change


def last_checkpoint(work: Path) -> str | None:
    """The newest checkpoint that is whole; the trainer writes its state last, so a kill while saving leaves none or half."""
    newest_first = sorted(work.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]), reverse=True)
    return next((str(path) for path in newest_first if _is_json(path / "trainer_state.json")), None)


def restore(model: Any, checkpoint: str) -> None:
    """Load a checkpoint's weights, all of them.

    The trainer would not: it compares saved names with those in memory, which differ for models whose layout changed since
    (LLaVA among them), and skips what it does not find. Adapters it loads by their own names, rightly.
    """
    saved = type(model).from_pretrained(checkpoint, dtype=model.dtype).state_dict()
    model.load_state_dict(saved, strict=True)


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text())
    except (OSError, ValueError):
        return False
    return True


def _relative_change(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> float:
    """Norm of the difference over the norm of what was, over all tensors that may learn."""
    moved = sum(float((after[name].cpu().float() - old.float()).square().sum()) for name, old in before.items())
    norm = sum(float(old.float().square().sum()) for old in before.values())
    return (moved / norm) ** 0.5
