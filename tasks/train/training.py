"""What every training stage shares: its recipe, its progress, where it resumes, and publishing what it trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from storage import checkpoints
from storage.artifacts import PolicyCheckpoint
from tasks.configs.train import TrainingSettings
from tasks.models.handles import PolicyHandle
from tasks.models.loading import current_device
from tasks.stage.calls import fault_point, resume_folder
from tasks.stage.progress import progress
from tasks.stage.results import StageResult
from tasks.train.model_card import model_card

if TYPE_CHECKING:
    import PIL.Image

    from tasks.core.models.policy import Policy
    from tasks.core.train.answers import Picture
    from tasks.core.train.steps import TrainingRun
    from tasks.core.train.weights import Recipe


def recipe_of(config: TrainingSettings, seed: int) -> Recipe:
    """What the core needs of a configuration, whatever the method."""
    from tasks.core.train.weights import Recipe

    return Recipe(
        train=config.train,
        lr=config.lr,
        epochs=config.epochs,
        batch_size=config.batch_size,
        warmup_share=config.warmup_share,
        lora_rank=config.lora_rank,
        checkpoint_steps=config.checkpoint_steps,
        seed=seed,
        save_dtype=config.save_dtype,
        micro_batch_size=config.micro_batch_size,
    )


class Shown(Protocol):
    """A prompt about an image."""

    @property
    def image(self) -> Picture:
        """Decoded, or what decodes it."""

    @property
    def prompt(self) -> str:
        """Its text."""


@contextmanager
def training_run(name: str, config: TrainingSettings, seed: int, examples: int, batch: int) -> Iterator[TrainingRun]:
    """A training of `examples` in steps of `batch`: its recipe, its progress, and the stage's resume points."""
    from tasks.core.train.steps import TrainingRun
    from tasks.core.train.weights import steps_of

    with training_progress(name, steps_of(examples, batch, config.epochs), "steps") as reached:
        yield TrainingRun(recipe_of(config, seed), resume_folder(), lambda done, loss: reached(done))


@contextmanager
def training_progress(name: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """Progress by how much is done in all, as a resumed training reports it; past its half, a fault point of that name."""
    with progress(name, total, unit=unit) as advance:
        before = 0

        def reached(done: int) -> None:
            nonlocal before
            advance(done - before)
            before = done
            if 2 * done > total:
                fault_point(name)

        yield reached


@dataclass(frozen=True)
class TrainResult(StageResult):
    """A trained policy, a whole checkpoint with adapters merged."""

    policy: PolicyCheckpoint
    dtype: str  # number format that it is saved in, and has to be loaded in
    figures: dict[str, float]  # of the training: how far the weights moved, and what its method measures


def train_result(
    config: TrainingSettings,
    policy: PolicyHandle,
    loaded: Policy,
    shown: Sequence[tuple[PIL.Image.Image, str]],
    figures: dict[str, float],
    counters: Mapping[str, float],
) -> TrainResult:
    """Publish what was trained, with a model card.

    Args:
        config: how it was trained.
        policy: what it was trained from.
        loaded: the trained policy, adapters merged.
        shown: (image, prompt) pairs whose logits are compared after a reload.
        figures: facts of the training.
        counters: of the stage.

    Raises:
        RuntimeError: the saved model does not give the logits that the trained one gives.
    """
    dtype = "float32" if figures["saved_in_float32"] else policy.dtype
    published = publish_trained(loaded, shown, replace(policy, dtype=dtype), model_card(config, policy, dtype, figures))
    return TrainResult(policy=published, dtype=dtype, figures=figures, counters=counters)


def shown_of(examples: Sequence[Shown]) -> list[tuple[PIL.Image.Image, str]]:
    """Images and prompts of the first few, whose logits `publish_trained` compares."""
    from tasks.core.train.answers import opened

    return [(opened(example.image), example.prompt) for example in examples[:4]]


def publish_trained(
    loaded: Policy, shown: Sequence[tuple[PIL.Image.Image, str]], policy: PolicyHandle, card: str
) -> PolicyCheckpoint:
    """Save, reload, compare: the checkpoint gives the logits of the model that was trained.

    Args:
        loaded: the trained policy, adapters merged.
        shown: (image, prompt) pairs whose logits are compared.
        policy: how it is loaded again: what it was trained from, in the number format that it is saved in.
        card: the model card.

    Raises:
        RuntimeError: the saved model does not give the logits that the trained one gives.
    """
    import torch

    from tasks.core.models.policy import load_policy

    with checkpoints.scratch_folder() as scratch:
        folder = scratch / "policy"
        loaded.model.save_pretrained(folder)
        loaded.processor.save_pretrained(folder)
        (folder / "README.md").write_text(card, encoding="utf-8")
        again = load_policy(
            folder,
            digest="reload check",
            dtype=policy.dtype,
            device=current_device(),
            trust_remote_code=policy.trust_remote_code,
            settings=policy.settings,
        )
        images, prompts = [image for image, _ in shown], [prompt for _, prompt in shown]
        with torch.inference_mode():
            inputs, there = loaded.inputs(images, prompts), again.inputs(images, prompts)
            logits = loaded.model(**inputs).logits.float()
            difference = (logits - again.model(**there).logits.float()).abs().max().item()
        # In 16 bits: one step of the format at the largest logit.
        step = torch.finfo(loaded.model.dtype).eps * logits.abs().max().item()
        if not difference <= max(1e-4, step):
            raise RuntimeError(
                f"the saved model does not reload to what was trained: logits differ by {difference:.3g}; "
                "this checkpoint's save_pretrained loses weights or processor settings, so it can't be used in a loop"
            )
        return checkpoints.publish_folder(PolicyCheckpoint, folder)
