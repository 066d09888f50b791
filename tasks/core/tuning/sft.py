"""Supervised fine-tuning on captions with TRL: loss on the answer's tokens only, LoRA merged or all weights.

Departs from the released `sft_training.py`, whose labels mask only padding and image tokens, so that it trains on the user's
prompt as well. What the weights were and are is compared, since an adapter that silently does nothing is a known failure.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from tasks.core.models.policy import Policy
from tasks.core.tuning.weights import (
    FinetuneError,
    Recipe,
    adapters,
    last_checkpoint,
    let_language_learn,
    restore,
    settle,
    steps_of,
    weights_before,
)


@dataclass(frozen=True)
class Example:
    """One caption to learn."""

    image: Image.Image
    prompt: str
    answer: str


def example_row(example: Example) -> dict[str, Any]:
    """A row in TRL's prompt/completion form with its image."""
    return {
        "images": [example.image],
        "prompt": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": example.prompt}]}],
        "completion": [{"role": "assistant", "content": [{"type": "text", "text": example.answer}]}],
    }


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
    before = weights_before(policy.model)
    checkpoint = last_checkpoint(work)
    if checkpoint is not None and recipe.train == "full":
        restore(policy.model, checkpoint)
    let_language_learn(policy.model)
    trainer = _trainer(policy, examples, recipe, work, on_step)
    _check_labels(trainer)
    trainer.train(resume_from_checkpoint=checkpoint)
    change = settle(trainer.model, before, recipe)
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
        peft_config=adapters(recipe.lora_rank) if recipe.train == "lora" else None,
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


def _check_labels(trainer: Any) -> None:
    """The first batch has loss on some tokens and none on image or prompt tokens."""
    batch = next(iter(trainer.get_train_dataloader()))
    learned = (batch["labels"] != -100).sum(dim=1)
    if not bool((learned > 0).all()) or bool((learned == batch["attention_mask"].sum(dim=1)).any()):
        raise FinetuneError(
            f"tokens with loss in the first batch: {learned.tolist()} of {batch['attention_mask'].sum(dim=1).tolist()}; "
            "want the answer's, not none and not all: check the checkpoint's chat template"
        )
