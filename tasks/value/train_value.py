"""Stage 4, train_value: V(image, sentence) by temporal difference or Monte Carlo, judged on held-out images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from storage import checkpoints, lake
from storage.artifacts import Table, ValueCheckpoint
from storage.schema import Image, Reward, Rollout, Sample, Value
from tasks.configs.value import ValueConfig
from tasks.models.handles import PolicyHandle
from tasks.stage.calls import fault_point, resume_folder
from tasks.stage.progress import progress
from tasks.stage.quarantine import StageInputError
from tasks.stage.results import StageResult
from tasks.stage.runtime import current_runtime
from tasks.stage.stage import stage
from tasks.value.held_out import ValueCollapsed, held_out_health, held_out_values
from tasks.value.learners import Answer, Labelled, Learner, StoredPictures, image_and_text, policy_states

if TYPE_CHECKING:
    from tasks.core.value.fit import ValueFit
    from tasks.core.value.td import Transition


@dataclass(frozen=True)
class ValueResult(StageResult):
    """A value model, judged on held-out sentences."""

    value: ValueCheckpoint
    values: Table[Value]  # held out
    spearman: float  # rank correlation with the Monte-Carlo return, over all sentences
    spread: float  # standard deviation of V
    # These and more: what a search compares (rank_within, auc_within with their intervals), the TD error, the losses.
    health: dict[str, float]
    problem: str  # why V can't guide, where value.action is warn; "" if it can


@stage()
def train_value(
    config: ValueConfig,
    value_backbone: PolicyHandle,
    images: Table[Image],
    samples: Table[Sample],
    rewards: Table[Reward] | list[Table[Reward]],
    *,
    rollouts: Table[Rollout] | list[Table[Rollout]] | None = None,
    seed: int,
) -> ValueResult:
    """Fit V on the training images and check it on the held-out ones.

    `rollouts` are the answers that the rewards belong to; a V that reads the policy's states needs them, for the states
    depend on every character of an answer. Several tables of either are read as one.

    `config.published` is the released update, whatever target, terminal and target_decay are; V is judged by
    bootstrap_forever then. `ground_truth` is no matter of this stage: give it what `reference_answers` made.

    Raises:
        ValueCollapsed: V can't guide a search.
        StageInputError: nothing to learn from, or rollouts that are missing.
    """
    from tasks.core.value.fit import ValueFit
    from tasks.core.value.td import transitions

    config = _carried_out(config)
    labelled = _answers_of(samples, rewards)
    learner = _learner(config, value_backbone, images, labelled, rollouts)
    fit = ValueFit(
        value=learner.value,
        parameters=learner.model.parameters(),
        gamma=config.gamma,
        mode=config.terminal,
        lr=config.lr,
        target_decay=config.target_decay,
        method=config.target,
        trace=config.trace,
        published=config.published,
        micro_batch=config.micro_batch_size,
    )
    train = [(answer.image, answer.sentences, answer.rewards) for answer in learner.answers if not answer.held_out]
    data = transitions(train, state=learner.state, mode=config.terminal)
    if not data:
        raise StageInputError("no transition to learn from: every answer has one sentence at most; see rollouts")
    plan = fit.plan(data, config.batch_size, config.epochs, seed)
    losses = _fit(fit, data, plan, config.checkpoint_steps)
    rows = held_out_values(fit, learner, labelled, config, current_runtime().batch_size)
    health, problem = held_out_health(rows, losses, learner.answers, config)
    _check_moved(fit, len(plan), config.lr)
    return ValueResult(
        value=_published(learner),
        values=lake.publish(Value, rows),
        spearman=health["spearman"],
        spread=health["spread"],
        health=health,
        problem=problem,
        counters={
            "transitions": len(data),
            "steps": len(plan),
            "value_tokens": learner.value_tokens,
            "states_tokens": learner.states_tokens,
        },
    )


def _carried_out(config: ValueConfig) -> ValueConfig:
    """The settings as the fit uses them."""
    if config.published:
        return config.model_copy(update={"target": "td0", "terminal": "bootstrap_forever", "target_decay": 0.0})
    if config.gamma == 0 and config.target == "td0":
        return config.model_copy(update={"target": "mc"})  # the reward either way, and no next sentence to be read
    return config


def _answers_of(samples: Table[Sample], rewards: Table[Reward] | list[Table[Reward]]) -> Labelled:
    """All answers that can be learned from or judged on.

    Raises:
        StageInputError: none to learn from.
    """
    sampled = lake.read_rows(Sample, samples)
    ids = sorted({sample.image_id for sample in sampled})
    answers = _answers(sampled, ids, lake.read_rows(Reward, rewards))
    if all(answer.held_out for answer in answers):
        raise StageInputError("no answer to learn from: every one has a sentence without a score; see rewards")
    return Labelled(answers, ids)


def _learner(
    config: ValueConfig,
    value_backbone: PolicyHandle,
    images: Table[Image],
    labelled: Labelled,
    rollouts: Table[Rollout] | list[Table[Rollout]] | None,
) -> Learner:
    """The value model of the kind that the profile names, with the answers it learns from and is judged on."""
    pictures = StoredPictures(images, labelled.image_ids)
    texts = {row.rollout_id: row.text for row in lake.read_rows(Rollout, rollouts)} if rollouts is not None else {}
    if config.reads == "image_and_text":
        return image_and_text(config, value_backbone, labelled.answers, texts, pictures)
    if rollouts is None:
        raise StageInputError("value.reads policy_states reads whole answers: give train_value the rollouts table too")
    return policy_states(config, value_backbone, labelled.answers, texts, pictures)


def _answers(samples: Sequence[Sample], ids: Sequence[str], rewards: Sequence[Reward]) -> list[Answer]:
    """Answers with their sentences in order; answers with an unscored sentence are left out."""
    at = {image_id: index for index, image_id in enumerate(ids)}
    sample_of = {sample.sample_id: sample for sample in samples}
    by_rollout: dict[str, list[Reward]] = {}
    for row in rewards:
        by_rollout.setdefault(row.rollout_id, []).append(row)
    answers = []
    for rollout_id, rows in sorted(by_rollout.items()):
        rows.sort(key=lambda row: row.step)
        shaped = [row.shaped for row in rows if row.shaped is not None]
        if len(shaped) == len(rows):
            sample, ends = sample_of[rows[0].sample_id], [row.end for row in rows]
            sentences, held_out = [row.sentence for row in rows], sample.split == "val"
            answers.append(Answer(rollout_id, at[sample.image_id], sentences, shaped, sample.prompt, held_out, ends))
    return answers


def _published(learner: Learner) -> ValueCheckpoint:
    with checkpoints.scratch_folder() as folder:
        learner.model.save(folder / "value")
        return checkpoints.publish_folder(ValueCheckpoint, folder / "value")


def _fit(fit: ValueFit, data: Sequence[Transition], plan: Sequence[np.ndarray], every: int) -> list[float]:
    """Train with step checkpoints in the call's resume folder. Returns the losses of all steps, those before a kill too."""
    import torch
    from safetensors.torch import load_file, save_file

    from tasks.core.value.fit import FitState, run_fit

    folder = resume_folder()
    saved = sorted(folder.glob("step-*.safetensors"))
    losses: list[float] = []
    if saved:
        tensors = load_file(saved[-1])
        losses = tensors.pop("losses").tolist()
        fit.restore(FitState(len(losses), tensors))
    start = len(losses)

    with progress("train_value", len(plan), unit="steps") as advance:
        advance(start)

        def after_step(done: int, loss: float) -> None:
            advance(1)
            losses.append(loss)
            if done % every == 0 and done < len(plan):
                tensors = fit.state(done).tensors | {"losses": torch.tensor(losses, dtype=torch.float64)}
                _replace(folder, done, lambda path: save_file(tensors, path))
            if 2 * done > len(plan):
                fault_point("train_value")

        try:
            run_fit(fit, data, plan=plan, start=start, after_step=after_step)
        except FloatingPointError as error:
            raise ValueCollapsed(f"training broke off: {error}") from error
        except (torch.OutOfMemoryError, MemoryError) as error:
            size = fit.micro_batch or "a batch of"
            raise StageInputError(
                f"memory ran out with {size} transitions a forward ({str(error).splitlines()[0]}): set a smaller "
                "value.micro_batch_size, value.train=lora or value.reads=policy_states, or take smaller images"
            ) from error
    return losses


def _check_moved(fit: ValueFit, steps: int, lr: float) -> None:
    """Refuse weights that moved further or less than so many steps at this rate can move them."""
    from tasks.core.train.movement import expected_movement, refusal

    wrong = refusal(fit.movement(), expected_movement([lr] * steps), 0.0, f"{steps} steps at value.lr ({lr:g})")
    if wrong:
        raise ValueCollapsed(
            f"the value model: {wrong}; the number format failed: set policy.dtype=float32 or another lr"
        )


def _replace(folder: Path, step: int, save: Callable[[Path], None]) -> None:
    """Write the new step's file completely before the old one goes."""
    old = list(folder.glob("step-*.safetensors"))
    path = folder / f"step-{step:08d}.safetensors"
    save(path.with_suffix(".part"))
    path.with_suffix(".part").rename(path)
    for file in old:
        file.unlink()
