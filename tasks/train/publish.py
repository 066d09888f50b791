"""What every fine-tuning stage ends with: the tuned policy saved, loaded again, compared and published."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from storage import checkpoints
from storage.artifacts import ArtifactRef
from tasks.configs.policy import PolicyConfig
from tasks.configs.train import TrainingSettings
from tasks.models.loading import device_of
from tasks.stage.runtime import RuntimeConfig

if TYPE_CHECKING:
    import PIL.Image

    from tasks.core.models.policy import Policy
    from tasks.core.train.weights import Recipe


def recipe_of(config: TrainingSettings, seed: int) -> Recipe:
    """What the core needs to know of a configuration, whatever the method."""
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
    )


def publish_tuned(
    loaded: Policy, shown: Sequence[tuple[PIL.Image.Image, str]], model: PolicyConfig, runtime: RuntimeConfig
) -> ArtifactRef:
    """Save, reload, compare: what is kept says what was trained.

    Args:
        loaded: the tuned policy, adapters merged.
        shown: a few (image, prompt) whose logits are compared.
        model: how policies are loaded.
        runtime: where.

    Raises:
        RuntimeError: the saved model does not give the logits that the trained one gives.
    """
    import torch

    from tasks.core.models.policy import load_policy

    with checkpoints.scratch_folder() as scratch:
        folder = scratch / "policy"
        loaded.model.save_pretrained(folder)
        loaded.processor.save_pretrained(folder)
        again = load_policy(
            folder,
            digest="reload check",
            dtype=model.dtype,
            device=device_of(runtime),
            trust_remote_code=model.trust_remote_code,
        )
        images, prompts = [image for image, _ in shown], [prompt for _, prompt in shown]
        with torch.inference_mode():
            inputs, there = loaded.inputs(images, prompts), again.inputs(images, prompts)
            difference = (loaded.model(**inputs).logits - again.model(**there).logits).abs().max().item()
        if difference > 1e-4:
            raise RuntimeError(
                f"the saved model does not reload to what was trained: logits differ by {difference:.3g}; "
                "this checkpoint's save_pretrained loses weights or processor settings, so it can't be used in a loop"
            )
        return checkpoints.publish_folder("policy", folder)
