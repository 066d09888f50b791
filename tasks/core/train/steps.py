"""What a training by steps is made of: the run, rows, an objective, and figures of the steps as they were logged."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from tasks.core.models.policy import Policy
from tasks.core.models.precision import has_half
from tasks.core.models.torchvision_operators import ensure_torchvision_operators
from tasks.core.train.answers import Turn
from tasks.core.train.weights import Recipe, steps_of

ensure_torchvision_operators()  # before transformers

from transformers import TrainerCallback, TrainingArguments  # noqa: E402

if TYPE_CHECKING:
    from tasks.core.train.step_trainer import StepTrainer

Report = Callable[[int, float], None]  # (steps done, loss)


@dataclass(frozen=True)
class TrainingRun:
    """One training: how, where it is resumed from, and who hears of its steps."""

    recipe: Recipe
    work: Path  # folder for resume points; the caller removes it
    on_step: Report
    recompute: bool | None = None  # activations in the backward pass; None: on an accelerator only


@dataclass(frozen=True, eq=False)
class Row:
    """What counts as one in the batch: a caption, a pair, a drawn answer."""

    item: int  # of the data, by index
    turns: tuple[Turn, ...]
    weight: float  # the step's loss is the sum over its rows over the sum of their weights
    advantage: float = 0.0
    reference: tuple[torch.Tensor, ...] = ()  # for each turn the reference's log-probabilities [T], on the host


class Objective(NamedTuple):
    """What a step learns from, and its loss."""

    # (the step's items, the trainer) -> rows; whatever has to be drawn or read first is done here, without gradients.
    rows: Callable[[Sequence[int], StepTrainer], list[Row]]
    # (log-probabilities [turns, T] with 0 before short answers, the rows) -> sum of losses, sums of figures, over the rows.
    loss: Callable[[torch.Tensor, Sequence[Row]], tuple[torch.Tensor, dict[str, torch.Tensor]]]
    items: int  # size of the data, at least 1
    batch: int  # items a step
    temperature: float = 1.0  # of the log-probabilities


def trainer_arguments(policy: Policy, run: TrainingRun, objective: Objective) -> TrainingArguments:
    """It shows nothing and reports every step."""
    recipe, on_cpu = run.recipe, policy.device.type == "cpu"
    return TrainingArguments(
        output_dir=str(run.work),
        per_device_train_batch_size=objective.batch,
        num_train_epochs=recipe.epochs,
        learning_rate=recipe.lr,
        lr_scheduler_type="linear",
        warmup_steps=round(recipe.warmup_share * steps_of(objective.items, objective.batch, recipe.epochs)),
        weight_decay=0.0,
        seed=recipe.seed % 2**31,
        data_seed=recipe.seed % 2**31,
        logging_steps=1,
        disable_tqdm=True,
        report_to=[],
        save_steps=recipe.checkpoint_steps,
        save_total_limit=1,
        activation_checkpointing=not on_cpu if run.recompute is None else run.recompute,
        activation_checkpointing_kwargs={"use_reentrant": False},
        bf16=has_half(policy.model),  # autocast: what learns is float32
        use_cpu=on_cpu,
        log_level="error",
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )


class Reporter(TrainerCallback):
    """Calls `on_step` after every step."""

    def __init__(self, on_step: Report) -> None:
        self.report = on_step

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """A step was logged."""
        if logs and "loss" in logs:
            self.report(state.global_step, float(logs["loss"]))


def history(trainer: Any, name: str) -> list[float]:
    """A logged figure of every step that has it; kept in checkpoints, so a resumed training has all of them."""
    return [float(step[name]) for step in trainer.state.log_history if step.get(name) is not None]


def first_and_last(trainer: Any, *names: str) -> dict[str, float]:
    """`{name}_first` and `{name}_last`: means of logged figures over the first and the last tenth of the steps.

    One step's figure is of one batch. Nothing of a figure that was never logged.
    """
    facts: dict[str, float] = {}
    for name in names:
        values = history(trainer, name)
        if values:
            tenth = math.ceil(len(values) / 10)
            facts[f"{name}_first"] = sum(values[:tenth]) / tenth
            facts[f"{name}_last"] = sum(values[-tenth:]) / tenth
    return facts
