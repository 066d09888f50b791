"""Stage 6, finetune: the policy learns the captions that search found for its own images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from storage import checkpoints, lake
from storage.artifacts import ArtifactRef, StageOutput
from storage.schema import Caption, Sample
from tasks.caching import StageInputError, fault_point, resume_folder, stage
from tasks.configs import FinetuneConfig, PolicyConfig, RuntimeConfig
from tasks.loading import fresh_policy, load_images
from tasks.progress import progress

if TYPE_CHECKING:
    from tasks.core.models.policy import Policy
    from tasks.core.sft import Example


@stage()
def finetune(
    config: FinetuneConfig,
    model: PolicyConfig,
    policy: ArtifactRef,
    images: ArtifactRef,
    samples: ArtifactRef,
    captions: ArtifactRef,
    *,
    seed: int,
    runtime: RuntimeConfig,
    label: str = "",
) -> StageOutput:
    """Fine-tune on captions. Output: policy (a whole checkpoint, adapters merged). Facts: how far the weights moved."""
    from tasks.core.sft import Example, Recipe, steps_of
    from tasks.core.sft import finetune as run_sft

    prompts = {one.sample_id: one.prompt for one in lake.read_rows(Sample, samples)}
    searched = lake.read_rows(Caption, captions)
    rows = [row for row in searched if row.text]
    if not rows:
        raise StageInputError(
            "every searched caption is empty: nothing to learn; see the captions and search_trace tables"
        )
    pictures = load_images(images, [row.image_id for row in rows])
    examples = [Example(pictures[row.image_id], prompts[row.sample_id], row.text) for row in rows]
    loaded = fresh_policy(model, policy, runtime)
    work = resume_folder()
    recipe = Recipe(**config.model_dump(), seed=seed)
    total = steps_of(len(examples), config.batch_size, config.epochs)
    with progress("finetune", total, unit="steps") as advance:
        seen = 0

        def on_step(done: int, loss: float) -> None:
            nonlocal seen
            advance(done - seen)
            seen = done
            if 2 * done > total:
                fault_point("finetune")

        facts = run_sft(loaded, examples, recipe, work=work, on_step=on_step)
    with checkpoints.scratch_folder() as folder:
        kept = _publish(loaded, examples, folder / "policy", model, runtime)
    return StageOutput(
        refs={"policy": kept},
        facts=facts,
        counters={"examples": len(examples), "empty_captions": len(searched) - len(rows)},
    )


def _publish(
    loaded: Policy, examples: Sequence[Example], folder: Path, model: PolicyConfig, runtime: RuntimeConfig
) -> ArtifactRef:
    """Save, reload, compare: what is kept says what was trained."""
    import torch

    from tasks.core.models.policy import load_policy
    from tasks.loading import device_of

    loaded.model.save_pretrained(folder)
    loaded.processor.save_pretrained(folder)
    again = load_policy(
        folder,
        digest="reload check",
        dtype=model.dtype,
        device=device_of(runtime),
        trust_remote_code=model.trust_remote_code,
    )
    shown = examples[:4]
    with torch.inference_mode():
        inputs = loaded.inputs([one.image for one in shown], [one.prompt for one in shown])
        there = again.inputs([one.image for one in shown], [one.prompt for one in shown])
        difference = (loaded.model(**inputs).logits - again.model(**there).logits).abs().max().item()
    if difference > 1e-4:
        raise RuntimeError(
            f"the saved model does not reload to what was trained: logits differ by {difference:.3g}; "
            "this checkpoint's save_pretrained loses weights or processor settings, so it can't be used in a loop"
        )
    return checkpoints.publish_folder("policy", folder)
