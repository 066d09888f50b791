"""Direct preference optimisation with TRL, on images (Rafailov et al., arXiv 2305.18290).

The loss is -log sigmoid(beta * (log-ratio of the chosen answer - log-ratio of the rejected one)); a log-ratio is the policy's
log-probability of the answer's tokens less the reference's, which is the policy before training: with LoRA the adapters are
switched off for it, otherwise a frozen copy stands beside it.

Published defects that are checked for here: a truncation that drops images silently (trl#5285) or cuts image tokens
(trl#4289). Nothing is cut, and the first batch must have its pixels and a loss on both answers.
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
    first_and_last,
    reporter,
    train,
    user_message,
)
from tasks.core.train.weights import FinetuneError, adapters, frozen_copy, steps_of


@dataclass(frozen=True)
class PreferencePair:
    """Two answers to one prompt about one image."""

    image: Image.Image
    prompt: str
    chosen: str
    rejected: str


def train_dpo(policy: Policy, pairs: Sequence[PreferencePair], run: TrainingRun, *, beta: float) -> dict[str, float]:
    """Train `policy.model` in place on preferences, from the last checkpoint under `run.work` on.

    Args:
        policy: loaded model and processor.
        pairs: at least one.
        run: how and where; its batch size counts pairs.
        beta: strength of the reference; the smaller, the further the policy may go.

    Returns:
        `steps`, `loss_first`, `loss_last`, `relative_change`, and of the first and the last tenth of the steps: `accuracy`
        (share of pairs whose chosen answer has the larger log-ratio), `margin` (beta times the difference of the log-ratios),
        `chosen` and `rejected` (log-probabilities of the answers).

    Raises:
        FinetuneError: if a batch has no pixels or an answer no loss, no weight changed, or weights are no longer numbers.
    """
    # Before anything is restored into the policy: the reference is the policy as it came.
    reference = None if run.recipe.train == "lora" else frozen_copy(policy.model)
    trainer, facts = train(policy, run, build=lambda: _trainer(policy, reference, pairs, run, beta), check=_check_batch)
    logged = {
        "accuracy": "rewards/accuracies",
        "margin": "rewards/margins",
        "chosen": "logps/chosen",
        "rejected": "logps/rejected",
    }
    for fact, name in logged.items():
        facts |= first_and_last(trainer, name, fact)
    return facts


def _trainer(policy: Policy, reference: Any, pairs: Sequence[PreferencePair], run: TrainingRun, beta: float) -> Any:
    """TRL's trainer over the pairs."""
    from trl import DPOConfig, DPOTrainer

    recipe = run.recipe
    rows = [
        {
            "images": [pair.image],
            "prompt": user_message(pair.prompt),
            "chosen": assistant_message(pair.chosen),
            "rejected": assistant_message(pair.rejected),
        }
        for pair in pairs
    ]
    return DPOTrainer(
        model=policy.model,
        ref_model=reference,
        args=DPOConfig(
            **arguments(policy, run, steps_of(len(pairs), recipe.batch_size, recipe.epochs)),
            beta=beta,
            max_length=None,  # cutting a pair would cut image tokens
        ),
        train_dataset=dataset(rows, "prompt", "chosen", "rejected"),
        processing_class=policy.processor,
        peft_config=adapters(policy.model, recipe.lora_rank) if recipe.train == "lora" else None,
        callbacks=[reporter(run.on_step)],
    )


def _check_batch(trainer: Any) -> None:
    """The first batch has pixels for every row, and every answer has loss, on its own tokens only."""
    batch = next(iter(trainer.get_train_dataloader()))
    if batch.get("pixel_values") is None or not batch["pixel_values"].numel():
        raise FinetuneError(
            f"the first batch has no pixel_values, only {sorted(batch)}: the images never reach the model; "
            "check the checkpoint's processor"
        )
    learned, read = batch["completion_mask"].sum(dim=1), batch["attention_mask"].sum(dim=1)
    if not bool((learned > 0).all()) or bool((learned == read).any()):
        raise FinetuneError(
            f"tokens with loss in the first batch (chosen, then rejected): {learned.tolist()} of {read.tolist()}; "
            "want the answers', not none and not all: check the checkpoint's chat template"
        )
