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
import os
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch

from tasks.core.models.policy import Policy
from tasks.core.models.torchvision_operators import ensure_torchvision_operators
from tasks.core.seeds import seed_for
from tasks.core.train.answers import REFUSALS, as_reference, read_tokens, readable
from tasks.core.train.leftovers import as_it_was, learning_mode
from tasks.core.train.micro_batches import MicroBatches
from tasks.core.train.movement import linear_rates
from tasks.core.train.steps import Objective, Reporter, Row, TrainingRun, trainer_arguments
from tasks.core.train.weights import (
    FinetuneError,
    Recipe,
    adapters,
    last_checkpoint,
    let_learn,
    restore,
    settle,
)

ensure_torchvision_operators()  # before transformers

from transformers import PrinterCallback, Trainer  # noqa: E402

log = logging.getLogger(__name__)


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
            args=trainer_arguments(policy, run, objective),
            train_dataset=range(objective.items),
            data_collator=_as_they_are,
            callbacks=[Reporter(run.on_step)],
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


def _as_they_are(items: list[int]) -> Any:
    """A batch is its items: they are read when their part is."""
    return items
