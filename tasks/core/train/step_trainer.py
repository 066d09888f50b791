"""What SFT, DPO and GRPO share: steps over rows of prompts with answers, read in parts; how a training goes on and ends.

A step is one effective batch. Its rows are read in parts that fit in memory, their gradients summed and weighted by what the
whole batch holds (tokens or pairs), so that the size of a part changes nothing but the order of a sum. Optimizer, schedule,
order of the examples, resume points and random state are those of transformers' Trainer; what is read and learned is ours,
because its collators and TRL's tokenise prompt and answer in another way than they are decoded.

The model learns in evaluation mode, with recomputation of activations where that is on: dropout would move log-ratios from
where they start, and running statistics of a frozen vision tower are no weights that learn.
"""

from __future__ import annotations

import logging
import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from tasks.core.models.policy import Policy
from tasks.core.models.precision import has_half
from tasks.core.seeds import seed_for
from tasks.core.train.answers import REFUSALS, Turn, as_reference, read_tokens, readable
from tasks.core.train.leftovers import as_it_was, learning_mode
from tasks.core.train.micro_batches import MicroBatches
from tasks.core.train.movement import linear_rates
from tasks.core.train.weights import (
    FinetuneError,
    Recipe,
    adapters,
    last_checkpoint,
    let_learn,
    restore,
    settle,
    steps_of,
)

log = logging.getLogger(__name__)

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


class StepTrainer(Trainer):
    """transformers' Trainer over indices of items: a step's rows, losses and parts are ours."""

    def __init__(
        self, policy: Policy, model: Any, objective: Objective, run: TrainingRun, before: dict[str, torch.Tensor]
    ) -> None:
        """`model` is what learns, `before` its weights now."""
        self.policy, self.run_of, self._before = policy, run, before
        self.objective: Objective = objective
        super().__init__(
            model=model,
            args=_arguments(policy, run, objective),
            train_dataset=range(objective.items),
            data_collator=_as_they_are,
            callbacks=[_reporter(run.on_step)],
        )
        self.remove_callback(PrinterCallback)
        self.micro = MicroBatches(run.recipe.micro_batch_size, run.recipe.batch_size)
        self.refused: dict[int, str] = {}  # item -> why it can't be read
        self._figures: dict[str, Any] = {}

    @property
    def step(self) -> int:
        """Steps done before this one."""
        return int(self.state.global_step)

    def note(self, **figures: float) -> None:
        """Log figures of this step."""
        self._figures |= figures

    def refuse(self, item: int, reason: str) -> None:
        """Leave an item out of the training, and count it."""
        if item not in self.refused:
            log.warning("an example can't be trained on and is left out: %s", reason)
        self.refused[item] = reason

    def readable(self, item: int, read: Callable[[], object]) -> bool:
        """Whether `read` succeeds; if the processor refuses, the item is left out."""
        try:
            read()
        except REFUSALS as error:
            self.refuse(item, f"{type(error).__name__}: {error}"[:200])
            return False
        return True

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """With the step's figures; they are kept in resume points."""
        if "loss" in logs:
            logs, self._figures = {**logs, **self._figures}, {}
        super().log(logs, start_time)

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """Gradients of one effective batch, in parts; its loss."""
        model.eval()
        with torch.no_grad(), self.accelerator.autocast():
            rows = self.objective.rows(inputs, self)
        learning_mode(model)
        loss, sums, weight = self.micro.run(lambda: self._accumulate(model, rows), model.zero_grad)
        model.eval()
        self.note(
            **{name: float(total) / max(weight, 1e-12) for name, total in sums.items()},
            weight=weight,
            untrainable=sorted(self.refused),  # type: ignore[arg-type]
        )
        return loss

    def _accumulate(self, model: Any, rows: Sequence[Row]) -> tuple[torch.Tensor, dict[str, Any], float]:
        """Gradients of the rows' mean loss; the loss, sums of figures, and the weight of the rows that were read."""
        planned = sum(row.weight for row in rows)
        total, weight = torch.zeros((), device=self.args.device), 0.0
        sums: Counter[str] = Counter()
        for part in self.micro.parts(rows):
            inputs, kept = self._inputs(part)
            if inputs is None:
                continue
            turns = [turn for row in kept for turn in row.turns]
            with self.compute_loss_context_manager():
                log_probs, _ = read_tokens(self.policy, model, inputs, turns, temperature=self.objective.temperature)
                loss, figures = self.objective.loss(log_probs, kept)
            self.accelerator.backward(loss / planned)
            total += loss.detach()
            weight += sum(row.weight for row in kept)
            sums.update({name: float(value.detach()) for name, value in figures.items()})
        if weight not in (planned, 0.0):  # rows were left out: the mean is over the others
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(planned / weight)
        return total / max(weight, 1e-12), dict(sums), weight

    def _inputs(self, rows: Sequence[Row]) -> tuple[dict[str, Any] | None, list[Row]]:
        inputs, kept, refused = readable(self.policy, rows, lambda row: row.turns)
        for row, reason in refused:
            self.refuse(row.item, reason)
        return inputs, kept

    @torch.no_grad()
    def with_reference(self, rows: Sequence[Row]) -> list[Row]:
        """The rows that can be read, with the reference's log-probabilities: those of the policy before training."""
        model = self.accelerator.unwrap_model(self.model_wrapped)
        with as_reference(model, self._before, self.run_of.recipe.train):
            return self.micro.run(lambda: self._read_reference(rows), lambda: None)

    def _read_reference(self, rows: Sequence[Row]) -> list[Row]:
        done: list[Row] = []
        for part in self.micro.parts(rows):
            inputs, kept = self._inputs(part)
            if inputs is None:
                continue
            turns = [turn for row in kept for turn in row.turns]
            log_probs, _ = read_tokens(
                self.policy, self.model_wrapped, inputs, turns, temperature=self.objective.temperature
            )
            read = iter(log_probs[i, log_probs.shape[1] - len(turn.tokens) :].cpu() for i, turn in enumerate(turns))
            done += [
                Row(row.item, row.turns, row.weight, row.advantage, tuple(next(read) for _ in row.turns))
                for row in kept
            ]
        return done


def train(policy: Policy, run: TrainingRun, objective: Objective) -> tuple[StepTrainer, dict[str, float]]:
    """Train `policy.model` in place (adapters are merged into it), from the last checkpoint under `run.work` on.

    Args:
        policy: loaded model and processor.
        run: how and where.
        objective: what is learned.

    Returns:
        The trainer after training, and facts: `steps`, `loss_first`, `loss_last`, `untrainable` (items that could not be
        read and were left out), `micro_batch_size` (rows read at once), and those of `settle`.

    Raises:
        FinetuneError: if no item can be read, no weight changed, weights are no longer numbers, or memory runs out.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    before = let_learn(policy.model, run.recipe.train)
    checkpoint = last_checkpoint(run.work)
    if checkpoint is not None and run.recipe.train == "full":
        restore(policy.model, checkpoint)
    with as_it_was(policy):
        model = _with_adapters(policy.model, run.recipe)
        trainer = StepTrainer(policy, model, objective, run, before.weights)
        trainer.train(resume_from_checkpoint=checkpoint)
    steps: list[dict[str, Any]] = trainer.state.log_history
    untrainable = {item for step in steps for item in step.get("untrainable", ())}
    if len(untrainable) == objective.items:
        reason = next(iter(trainer.refused.values()), "see the log")
        raise FinetuneError(f"none of {objective.items} examples can be trained on: {reason}; check images and prompts")
    count = int(trainer.state.max_steps)
    rates = linear_rates(run.recipe.lr, count, trainer.args.get_warmup_steps(count))
    moved = settle(trainer.model, before, run.recipe, rates)
    losses = [float(step["loss"]) for step in steps if "loss" in step and step.get("weight", 1)]
    return trainer, {
        "steps": float(trainer.state.global_step),
        "loss_first": losses[0] if losses else float("nan"),
        "loss_last": losses[-1] if losses else float("nan"),
        **moved,
        "untrainable": float(len(untrainable)),
        "micro_batch_size": float(trainer.micro.size),
    }


def _with_adapters(model: Any, recipe: Recipe) -> Any:
    """What learns: the model, or the model in its adapters."""
    if recipe.train == "full":
        return model
    from peft import get_peft_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("adapters", recipe.seed) % 2**63)
        return get_peft_model(model, adapters(model, recipe.lora_rank))


def _arguments(policy: Policy, run: TrainingRun, objective: Objective) -> TrainingArguments:
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


def _as_they_are(items: list[int]) -> Any:
    """A batch is its items: they are read when their part is."""
    return items


def _reporter(on_step: Report) -> Any:
    """A callback that calls `on_step` after every step."""

    class Reporter(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if logs and "loss" in logs:
                on_step(state.global_step, float(logs["loss"]))

    return Reporter()


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
