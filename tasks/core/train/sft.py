"""Supervised fine-tuning on captions with TRL: loss on the answer's tokens only, LoRA merged or all weights.

Departs from the released `sft_training.py`, whose labels mask only padding and image tokens, so that it trains on the user's
prompt as well. What the weights were and are is compared, since an adapter that silently does nothing is a known failure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from tasks.core.models.policy import Policy
from tasks.core.train.trl_trainer import (
    TrainingRun,
    arguments,
    assistant_message,
    dataset,
    reporter,
    train,
    user_message,
)
from tasks.core.train.weights import FinetuneError, adapters, steps_of


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
        "prompt": user_message(example.prompt),
        "completion": assistant_message(example.answer),
    }


def train_sft(policy: Policy, examples: Sequence[Example], run: TrainingRun) -> dict[str, float]:
    """Train `policy.model` in place (adapters are merged into it), from the last checkpoint under `run.work` on.

    Args:
        policy: loaded model and processor.
        examples: at least one.
        run: how and where.

    Returns:
        `steps`, `loss_first`, `loss_last`, `relative_change` of the weights that learn.

    Raises:
        FinetuneError: if no token carries loss, no weight changed, or weights are no longer numbers.
    """
    _, facts = train(policy, run, build=lambda: _trainer(policy, examples, run), check=_check_labels)
    return facts


def _trainer(policy: Policy, examples: Sequence[Example], run: TrainingRun) -> Any:
    """TRL's trainer over the examples."""
    from trl import SFTConfig, SFTTrainer

    recipe = run.recipe
    return SFTTrainer(
        model=policy.model,
        args=SFTConfig(
            **arguments(policy, run, steps_of(len(examples), recipe.batch_size, recipe.epochs)),
            completion_only_loss=True,
            max_length=None,  # cutting an example would cut image tokens
        ),
        train_dataset=dataset([example_row(example) for example in examples], "prompt", "completion"),
        processing_class=policy.processor,
        peft_config=adapters(policy.model, recipe.lora_rank) if recipe.train == "lora" else None,
        callbacks=[reporter(run.on_step)],
    )


def _check_labels(trainer: Any) -> None:
    """The first batch has loss on some tokens and none on image or prompt tokens."""
    batch = next(iter(trainer.get_train_dataloader()))
    learned = (batch["labels"] != -100).sum(dim=1)
    if not bool((learned > 0).all()) or bool((learned == batch["attention_mask"].sum(dim=1)).any()):
        raise FinetuneError(
            f"tokens with loss in the first batch: {learned.tolist()} of {batch['attention_mask'].sum(dim=1).tolist()}; "
            "want the answer's, not none and not all: check the checkpoint's chat template"
        )
