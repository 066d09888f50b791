"""What all ways to train a policy share: what learns, how it is kept and taken up again, and how far it moved.

What the weights were and are is compared, since an adapter that silently does nothing is a known failure, and so are weights
that a coarse number format blew up or left where they were.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tasks.core.models.parts import LoraTargets, learnable, lora_targets
from tasks.core.models.precision import (
    KEEPS_HALF,
    Formats,
    adapter_config,
    learn_in_float32,
    merged,
    to_float32,
    to_formats,
)
from tasks.core.train.movement import expected_movement, refusal


class FinetuneError(RuntimeError):
    """Fine-tuning that failed: nothing to learn from, no weight changed, or weights that are no longer numbers."""


@dataclass(frozen=True)
class Recipe:
    """How to train, whatever the objective."""

    train: str  # full (towers stay frozen, as LLaVA trains) or lora
    lr: float  # linear decay after the warm-up
    epochs: float
    batch_size: int  # the effective one
    warmup_share: float  # of all steps
    lora_rank: int  # alpha is twice that
    checkpoint_steps: int  # steps between resume points
    seed: int  # order of the examples and start of the adapters
    micro_batch_size: int | None = None  # rows read at once; None: as many as fit
    save_dtype: str = "auto"  # policy: the format it came in; float32; auto: float32 where that keeps less than half


@dataclass(frozen=True)
class Before:
    """A policy before it learns."""

    formats: Formats
    weights: dict[str, torch.Tensor]  # copies of what learns, on the host; empty with adapters, which leave it as it is
    targets: LoraTargets | None  # of adapters
    squares: float  # sum of squares of all weights that may learn
    count: int  # of these weights


def steps_of(examples: int, batch_size: int, epochs: float) -> int:
    """Optimizer steps of a fine-tuning: the last batch of an epoch may be short."""
    return math.ceil(epochs * math.ceil(examples / batch_size))


def let_learn(model: Any, train: str) -> Before:
    """Put `model` in training mode, what learns in float32 with gradients, as `train` says: full or lora.

    Raises:
        FinetuneError: adapters would reach too little of the language model.
    """
    targets = _targets(model) if train == "lora" else None
    may_learn = learnable(model)
    # On the host: beside a 7B model in training a GPU has no room for a second one.
    learned = {} if targets else {n: p.detach().to("cpu", copy=True) for n, p in may_learn.items()}
    squares = sum(float(parameter.detach().float().square().sum()) for parameter in may_learn.values())
    count = sum(parameter.numel() for parameter in may_learn.values())
    formats = learn_in_float32(model, train)
    model.train().requires_grad_(False)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in learned)
    return Before(formats, learned, targets, squares, count)


def adapters(model: Any, rank: int) -> Any:
    """PEFT's configuration of LoRA on every linear layer of the language model; alpha is twice the rank.

    Raises:
        FinetuneError: they would reach too little of the language model.
    """
    return adapter_config(_targets(model), rank)


def _targets(model: Any) -> LoraTargets:
    targets = lora_targets(model)
    if targets.lack:
        raise FinetuneError(f"{targets.lack}; set finetune.train=full, or choose another policy")
    return targets


@torch.no_grad()
def settle(trained: Any, before: Before, recipe: Recipe, rates: Sequence[float]) -> dict[str, float]:
    """Merge adapters in float32, round once to the format to save in, freeze; facts of what came of it.

    Args:
        trained: the model that `let_learn` prepared, with PEFT's adapters or without.
        before: what that returned.
        recipe: how it was trained, and the format to save in.
        rates: learning rate of each step.

    Returns:
        `relative_change`: norm of the difference over the norm of the weights that may learn, before rounding;
        `surviving_share`: what of it the policy's own format keeps, as the projection of the rounded difference on the
        difference, 1 for a float32 policy; `saved_in_float32`: 1 or 0;
        with adapters `lora_covered` of `lora_all` linear weights, an expert's counted as one; those that have an adapter.

    Raises:
        FinetuneError: if no weight changed, weights are no longer numbers, or they moved further or less than AdamW can at
            these rates.
    """
    moved = kept = 0.0
    adapted = 0
    for name, was, weight in _differences(trained, before):
        adapted += len(was) if was.dim() == 3 else 1
        change = weight - was
        moved += float(change.square().sum())
        kept += float(((weight.to(before.formats.dtypes[name]).float() - was) * change).sum())
    relative = (moved / before.squares) ** 0.5
    _check_moved(trained, relative, before, recipe, rates)
    share = kept / moved if before.formats.half else 1.0
    in_float32 = not before.formats.half or recipe.save_dtype == "float32"
    in_float32 |= recipe.save_dtype == "auto" and share < KEEPS_HALF
    _finish(trained, before, in_float32=in_float32)
    facts = {"relative_change": relative, "surviving_share": share, "saved_in_float32": float(in_float32)}
    if before.targets:
        facts |= {"lora_covered": float(adapted), "lora_all": float(before.targets.all)}
    return facts


def _differences(trained: Any, before: Before) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """(name, weight before, weight after), in float32, of every weight that training changes."""
    if before.targets:
        for name, weight, total in merged(trained):
            yield name, weight.detach().float(), total
        return
    after = dict(trained.named_parameters())
    for name, was in before.weights.items():
        yield name, was.float(), after[name].detach().cpu().float()


@torch.no_grad()
def _finish(trained: Any, before: Before, *, in_float32: bool) -> None:
    model = trained
    if before.targets:
        for name, weight, total in merged(trained):
            weight.data = total if in_float32 else total.to(before.formats.dtypes[name])
        model = trained.unload()
    model.eval().requires_grad_(False)
    if in_float32:
        to_float32(model)
    else:
        to_formats(model, before.formats)


def _check_moved(trained: Any, relative: float, before: Before, recipe: Recipe, rates: Sequence[float]) -> None:
    """Refuse an update that is none, no number, or not of the size that the steps allow."""
    setting = f"finetune.lr ({recipe.lr:g})"
    if not math.isfinite(relative):
        raise FinetuneError(f"fine-tuning diverged: weights are no longer numbers; lower {setting}")
    if not relative > 0:
        raise FinetuneError("fine-tuning left every weight as it was; check finetune.lr and finetune.train")
    norm = (before.squares / before.count) ** 0.5
    moved = relative * norm
    if recipe.train == "lora":  # the adapters' second matrices, which start at zero
        norm, moved = 0.0, _adapters_moved(trained)
    wrong = refusal(moved, expected_movement(rates), norm, f"{len(rates)} steps at {setting}")
    if wrong:
        raise FinetuneError(f"fine-tuning: {wrong}; the number format failed: set policy.dtype=float32 or another lr")


def _adapters_moved(trained: Any) -> float:
    """Root mean square of the adapters' second matrices."""
    squares = count = 0.0
    for name, parameter in trained.named_parameters():
        if ".lora_B." in name:
            squares += float(parameter.detach().float().square().sum())
            count += parameter.numel()
    return (squares / count) ** 0.5


def last_checkpoint(work: Path) -> str | None:
    """The newest checkpoint that is whole; the trainer writes its state last, so a kill while saving leaves none or half."""
    newest_first = sorted(work.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]), reverse=True)
    return next((str(path) for path in newest_first if _is_json(path / "trainer_state.json")), None)


def restore(model: Any, checkpoint: str) -> None:
    """Load a checkpoint's weights, all of them.

    The trainer would not: it compares saved names with those in memory, which differ for models whose layout changed since
    (LLaVA among them), and skips what it does not find. Adapters it loads by their own names, rightly.
    """
    # What learned was saved in float32, and is copied into weights that already are float32.
    saved = type(model).from_pretrained(checkpoint, dtype=torch.float32).state_dict()
    model.load_state_dict(saved, strict=True)


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text())
    except (OSError, ValueError):
        return False
    return True
