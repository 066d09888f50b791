"""Stage 6, finetune: the policy learns the captions that search found for its own images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from storage import lake
from storage.artifacts import ArtifactRef, StageOutput
from storage.schema import Caption, Sample
from tasks.configs.policy import PolicyConfig
from tasks.configs.train import FinetuneConfig
from tasks.models.loading import fresh_policy, load_images
from tasks.stage.progress import progress
from tasks.stage.runtime import RuntimeConfig
from tasks.stage.stage import StageInputError, fault_point, resume_folder, stage
from tasks.train.publish import publish_tuned, recipe_of
from tasks.train.replay import Replay, draw_replayed, replay_count

if TYPE_CHECKING:
    from tasks.core.train.sft import Example


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
    replay: Replay | None = None,
    runtime: RuntimeConfig,
    label: str = "",
) -> StageOutput:
    """Fine-tune on captions. Output: policy (a whole checkpoint, adapters merged). Facts: how far the weights moved.

    `replay`: other material, of which so much is mixed in that it is `config.replay.share` of the examples; all of it if that
    is not enough. Counters: examples (all), replayed (of them), replay_lacking (how many more were wanted), empty_captions.

    Raises:
        StageInputError: nothing to learn, or a share to replay without material.
    """
    from tasks.core.train.sft import train_sft
    from tasks.core.train.trl_trainer import TrainingRun
    from tasks.core.train.weights import steps_of

    if config.replay.share and replay is None:
        raise StageInputError(
            f"finetune.replay.share is {config.replay.share:g}, but there is nothing to replay; pass replay, or set it to 0"
        )
    searched = lake.read_rows(Caption, captions)
    rows = [row for row in searched if row.text]
    if not rows:
        raise StageInputError(
            "every searched caption is empty: nothing to learn; see the captions and search_trace tables"
        )
    wanted = replay_count(config.replay.share, len(rows))
    replayed = draw_replayed(replay, wanted, seed) if replay else []
    examples = _examples(images, samples, rows)
    if replay and replayed:
        examples += _examples(replay.images, replay.samples, replayed)  # the trainer shuffles
    loaded = fresh_policy(model, policy, runtime)
    total = steps_of(len(examples), config.batch_size, config.epochs)
    with progress("finetune", total, unit="steps") as advance:
        seen = 0

        def on_step(done: int, loss: float) -> None:
            nonlocal seen
            advance(done - seen)
            seen = done
            if 2 * done > total:
                fault_point("finetune")

        facts = train_sft(loaded, examples, TrainingRun(recipe_of(config, seed), resume_folder(), on_step))
    kept = publish_tuned(loaded, [(one.image, one.prompt) for one in examples[:4]], model, runtime)
    return StageOutput(
        refs={"policy": kept},
        facts=facts,
        counters={
            "examples": len(examples),
            "replayed": len(replayed),
            "replay_lacking": wanted - len(replayed),
            "empty_captions": len(searched) - len(rows),
        },
    )


def _examples(images: ArtifactRef, samples: ArtifactRef, captions: Sequence[Caption]) -> list[Example]:
    """Captions with their images and prompts."""
    from tasks.core.train.sft import Example

    prompts = {one.sample_id: one.prompt for one in lake.read_rows(Sample, samples)}
    pictures = load_images(images, [row.image_id for row in captions])
    return [Example(pictures[row.image_id], prompts[row.sample_id], row.text) for row in captions]
