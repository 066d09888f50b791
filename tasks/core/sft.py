"""Supervised fine-tuning on captions with TRL: loss on the answer's tokens only, LoRA merged or all weights.

Departs from the released `sft_training.py`, whose labels mask only padding and image tokens, so that it trains on the user's
prompt as well. What the weights were and are is compared, since an adapter that silently does nothing is a known failure.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from tasks.core.models.policy import Policy
from tasks.core.models.value import LINEAR_LAYERS


@dataclass(frozen=True)
class Example:
    """One caption to learn."""

    image: Image.Image
    prompt: str
    answer: str


class FinetuneError(RuntimeError):
    """Fine-tuning that did not do what it should."""


def example_row(example: Example) -> dict[str, Any]:
    """A row in TRL's prompt/completion form with its image."""
    return {
        "images": [example.image],
        "prompt": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": example.prompt}]}],
        "completion": [{"role": "assistant", "content": [{"type": "text", "text": example.answer}]}],
    }


def steps_of(examples: int, batch_size: int, epochs: float) -> int:
    """Optimizer steps of a fine-tuning: the last batch of an epoch may be short."""
    return math.ceil(epochs * math.ceil(examples / batch_size))


@dataclass(frozen=True)
class Recipe:
    """How to train."""

    train: str  # full (the vision tower stays frozen, as LLaVA trains) or lora
    lr: float  # linear decay after the warm-up
    epochs: float
    batch_size: int
    warmup_share: float  # of all steps
    lora_rank: int  # alpha is twice that
    checkpoint_steps: int  # steps between resume points
    seed: int  # order of the examples and start of the adapters


def finetune(
    policy: Policy,
    examples: Sequence[Example],
    recipe: Recipe,
    *,
    work: Path,
    on_step: Callable[[int, float], None],
) -> dict[str, float]:
    """Train `policy.model` in place (adapters are merged into it); goes on from the last checkpoint under `work`.

    Args:
        policy: loaded model and processor.
        examples: at least one.
        recipe: how.
        work: folder for resume points; the caller removes it.
        on_step: called with (steps done, loss).

    Returns:
        `steps`, `loss_first`, `loss_last`, `relative_change` of the weights that learn.

    Raises:
        FinetuneError: if no token carries loss, no weight changed, or weights are no longer numbers.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # On the host: beside a 7B model in training a GPU has no room for a second one.
    before = {n: p.detach().to("cpu", copy=True) for n, p in policy.model.named_parameters() if _is_language(n)}
    checkpoint = _last_checkpoint(work)
    if checkpoint is not None and recipe.train == "full":
        _restore(policy.model, checkpoint)
    policy.model.train()
    for name, parameter in policy.model.named_parameters():
        parameter.requires_grad_(_is_language(name))
    trainer = _trainer(policy, examples, recipe, work, on_step)
    _check_labels(trainer)
    trainer.train(resume_from_checkpoint=checkpoint)
    merged = trainer.model.merge_and_unload() if recipe.train == "lora" else trainer.model
    merged.eval().requires_grad_(False)
    change = _relative_change(before, dict(merged.named_parameters()))
    if not math.isfinite(change):
        raise FinetuneError(f"fine-tuning diverged: weights are no longer numbers; lower finetune.lr ({recipe.lr:g})")
    if not change > 0:
        raise FinetuneError("fine-tuning left every weight as it was; check finetune.lr and finetune.train")
    # The trainer's history is kept in its checkpoints, so a resumed training tells the same.
    losses = [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    return {
        "steps": float(trainer.state.global_step),
        "loss_first": losses[0] if losses else float("nan"),
        "loss_last": losses[-1] if losses else float("nan"),
        "relative_change": change,
    }


def _trainer(
    policy: Policy, examples: Sequence[Example], recipe: Recipe, work: Path, on_step: Callable[[int, float], None]
) -> Any:
    """TRL's trainer over the examples; it shows nothing and reports to `on_step`."""
    from transformers import PrinterCallback, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    class Report(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if logs and "loss" in logs:
                on_step(state.global_step, float(logs["loss"]))

    on_cpu = policy.device.type == "cpu"
    trainer = SFTTrainer(
        model=policy.model,
        args=SFTConfig(
            output_dir=str(work),
            per_device_train_batch_size=recipe.batch_size,
            num_train_epochs=recipe.epochs,
            learning_rate=recipe.lr,
            lr_scheduler_type="linear",
            warmup_steps=round(recipe.warmup_share * steps_of(len(examples), recipe.batch_size, recipe.epochs)),
            weight_decay=0.0,
            seed=recipe.seed % 2**31,
            data_seed=recipe.seed % 2**31,
            logging_steps=1,
            disable_tqdm=True,
            report_to=[],
            save_steps=recipe.checkpoint_steps,
            save_total_limit=1,
            completion_only_loss=True,
            max_length=None,  # cutting an example would cut image tokens
            activation_checkpointing=not on_cpu,
            bf16=policy.model.dtype == torch.bfloat16,
            use_cpu=on_cpu,
            log_level="error",
        ),
        train_dataset=_dataset(examples),
        processing_class=policy.processor,
        peft_config=_adapters(recipe.lora_rank) if recipe.train == "lora" else None,
        callbacks=[Report()],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _dataset(examples: Sequence[Example]) -> Any:
    from datasets import Dataset, Features, List, Value
    from datasets import Image as ImageFeature

    message = [{"role": Value("string"), "content": [{"type": Value("string"), "text": Value("string")}]}]
    features = Features({"images": List(ImageFeature()), "prompt": message, "completion": message})
    return Dataset.from_list([example_row(one) for one in examples], features=features)


def _is_language(name: str) -> bool:
    return "vision" not in name


def _adapters(rank: int) -> Any:
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=LINEAR_LAYERS)


def _check_labels(trainer: Any) -> None:
    """The first batch has loss on some tokens and none on image or prompt tokens."""
    batch = next(iter(trainer.get_train_dataloader()))
    learned = (batch["labels"] != -100).sum(dim=1)
    if not bool((learned > 0).all()) or bool((learned == batch["attention_mask"].sum(dim=1)).any()):
        raise FinetuneError(
            f"tokens with loss in the first batch: {learned.tolist()} of {batch['attention_mask'].sum(dim=1).tolist()}; "
            "want the answer's, not none and not all: check the checkpoint's chat template"
        )


def _last_checkpoint(work: Path) -> str | None:
    """The newest checkpoint that is whole; the trainer writes its state last, so a kill while saving leaves none or half."""
    found = sorted(work.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]), reverse=True)
    return next((str(path) for path in found if _is_json(path / "trainer_state.json")), None)


def _restore(model: Any, checkpoint: str) -> None:
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
