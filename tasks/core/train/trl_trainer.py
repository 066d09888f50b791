"""What all methods that train through TRL share: its arguments, what it reports, how a training goes on and ends.

TRL's trainers keep their resume points, random state and history in the work folder, so that a training that was killed ends
with the same weights and the same facts.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.core.models.policy import Policy
from tasks.core.models.precision import has_half
from tasks.core.train.movement import linear_rates
from tasks.core.train.weights import Recipe, last_checkpoint, let_learn, restore, settle

Report = Callable[[int, float], None]  # (steps done, loss)
Message = list[dict[str, Any]]


@dataclass(frozen=True)
class TrainingRun:
    """One training: how, where it is resumed from, and who hears of its steps."""

    recipe: Recipe
    work: Path  # folder for resume points; the caller removes it
    on_step: Report


def user_message(prompt: str) -> Message:
    """A user turn with an image and a prompt, in TRL's conversational form."""
    return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}]


def assistant_message(answer: str) -> Message:
    """The assistant's turn."""
    return [{"role": "assistant", "content": [{"type": "text", "text": answer}]}]


def dataset(rows: list[dict[str, Any]], *texts: str, **more: Any) -> Any:
    """TRL's data set of rows with `images`, the columns `texts` in conversational form, and columns of other features."""
    from datasets import Dataset, Features, List, Value
    from datasets import Image as ImageFeature

    message = [{"role": Value("string"), "content": [{"type": Value("string"), "text": Value("string")}]}]
    features = Features({"images": List(ImageFeature()), **{name: message for name in texts}, **more})
    return Dataset.from_list(rows, features=features)


def arguments(policy: Policy, run: TrainingRun, steps: int) -> dict[str, Any]:
    """What every TRL configuration gets: it shows nothing and reports every step.

    Args:
        policy: decides on device and number format.
        run: how to train; its batch size is a step's.
        steps: optimizer steps of the whole training.
    """
    recipe, on_cpu = run.recipe, policy.device.type == "cpu"
    return {
        "output_dir": str(run.work),
        "per_device_train_batch_size": recipe.batch_size,
        "num_train_epochs": recipe.epochs,
        "learning_rate": recipe.lr,
        "lr_scheduler_type": "linear",
        "warmup_steps": round(recipe.warmup_share * steps),
        "weight_decay": 0.0,
        "seed": recipe.seed % 2**31,
        "data_seed": recipe.seed % 2**31,
        "logging_steps": 1,
        "disable_tqdm": True,
        "report_to": [],
        "save_steps": recipe.checkpoint_steps,
        "save_total_limit": 1,
        "activation_checkpointing": not on_cpu,
        "bf16": has_half(policy.model),  # autocast: what learns is float32
        "use_cpu": on_cpu,
        "log_level": "error",
    }


def reporter(on_step: Report) -> Any:
    """A callback that calls `on_step` after every step."""
    from transformers import TrainerCallback

    class Reporter(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if logs and "loss" in logs:
                on_step(state.global_step, float(logs["loss"]))

    return Reporter()


def train(
    policy: Policy, run: TrainingRun, *, build: Callable[[], Any], check: Callable[[Any], None]
) -> tuple[Any, dict[str, float]]:
    """Train `policy.model` in place (adapters are merged into it), from the last checkpoint under `run.work` on.

    Args:
        policy: loaded model and processor.
        run: how and where.
        build: makes the trainer, once the model is ready for it.
        check: looks at the trainer before it trains.

    Returns:
        The trainer after training, and facts: `steps`, `loss_first`, `loss_last`, and those of `settle`.

    Raises:
        FinetuneError: if no weight changed, or weights are no longer numbers, or whatever `check` finds.
    """
    from transformers import PrinterCallback

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    before = let_learn(policy.model, run.recipe.train)
    checkpoint = last_checkpoint(run.work)
    if checkpoint is not None and run.recipe.train == "full":
        restore(policy.model, checkpoint)
    with _as_it_was(policy):
        trainer = build()
        trainer.remove_callback(PrinterCallback)
        check(trainer)
        trainer.train(resume_from_checkpoint=checkpoint)
        steps = int(trainer.state.max_steps)
        rates = linear_rates(run.recipe.lr, steps, trainer.args.get_warmup_steps(steps))
        facts = settle(trainer.model, before, run.recipe, rates)
    losses = history(trainer, "loss")
    return trainer, {
        "steps": float(trainer.state.global_step),
        "loss_first": losses[0] if losses else float("nan"),
        "loss_last": losses[-1] if losses else float("nan"),
        **facts,
    }


@contextmanager
def _as_it_was(policy: Policy) -> Iterator[None]:
    """Take back what a trainer leaves on the model beside its weights: a forward of its own."""
    own = policy.model.__dict__
    forward = own.get("forward")
    try:
        with warnings.catch_warnings():
            # TRL uses the old name of transformers, at every step.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            yield
    finally:
        own.pop("forward", None)
        if forward is not None:
            own["forward"] = forward


def history(trainer: Any, name: str) -> list[float]:
    """A logged figure of every step that has it; kept in checkpoints, so a resumed training has all of them."""
    return [float(step[name]) for step in trainer.state.log_history if step.get(name) is not None]


def first_and_last(trainer: Any, name: str, fact: str) -> dict[str, float]:
    """`{fact}_first` and `{fact}_last`: means of a logged figure over the first and the last tenth of the steps.

    One step's figure is of one batch. Nothing if it was never logged.
    """
    values = history(trainer, name)
    if not values:
        return {}
    tenth = math.ceil(len(values) / 10)
    return {
        f"{fact}_first": sum(values[:tenth]) / tenth,
        f"{fact}_last": sum(values[-tenth:]) / tenth,
    }
