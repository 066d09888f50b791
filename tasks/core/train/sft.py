"""Supervised fine-tuning on captions with TRL: loss on the answer's tokens only, LoRA merged or all weights.

Departs from the released `sft_training.py`, whose labels mask only padding and image tokens, so that it trains on the user's
prompt as well. What the weights were and are is compared, since an adapter that silently does nothing is a known failure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from tasks.core.models.policy import Policy
from tasks.core.train.trl_trainer import arguments, asked, dataset, reporter, said, train
from tasks.core.train.weights import FinetuneError, Recipe, adapters, steps_of


@dataclass(frozen=True)
class Example:
    """One caption to learn."""

    image: Image.Image
    prompt: str
    answer: str


def example_row(example: Example) -> dict[str, Any]:
    """A row in TRL's prompt/completion form with its image."""
    return {"images": [example.image], "prompt": asked(example.prompt), "completion": said(example.answer)}


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
    _, facts = train(
        policy,
        recipe,
        work,
        build=lambda: _trainer(policy, examples, recipe, work, on_step),
        check=_check_labels,
    )
    return facts


def _trainer(
    policy: Policy, examples: Sequence[Example], recipe: Recipe, work: Path, on_step: Callable[[int, float], None]
) -> Any:
    """TRL's trainer over the examples."""
    from trl import SFTConfig, SFTTrainer

    return SFTTrainer(
        model=policy.model,
        args=SFTConfig(
            **arguments(policy, recipe, work, steps_of(len(examples), recipe.batch_size, recipe.epochs)),
            completion_only_loss=True,
            max_length=None,  # cutting an example would cut image tokens
        ),
        train_dataset=dataset([example_row(one) for one in examples], "prompt", "completion"),
        processing_class=policy.processor,
        peft_config=adapters(recipe.lora_rank) if recipe.train == "lora" else None,
        callbacks=[reporter(on_step)],
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
