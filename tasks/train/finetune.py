"""Stage 6, finetune: the policy learns the captions that search chose for its own images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from storage import lake
from storage.artifacts import Table
from storage.schema import Caption, Image, Sample
from tasks.configs.train import SftConfig
from tasks.models.handles import PolicyHandle
from tasks.models.loading import StoredImages, fresh_policy
from tasks.stage.quarantine import StageInputError
from tasks.stage.stage import stage
from tasks.train.conversations import conversations
from tasks.train.replay import Replay, draw_replayed, replay_count
from tasks.train.training import TrainResult, shown_of, train_result, training_run

if TYPE_CHECKING:
    from tasks.core.train.sft import Example


@stage()
def finetune(
    config: SftConfig,
    policy: PolicyHandle,
    images: Table[Image],
    samples: Table[Sample],
    captions: Table[Caption],
    *,
    seed: int,
    replay: Replay | None = None,
) -> TrainResult:
    """Fine-tune on captions; those of one conversation are an example of several turns, with a loss on every answer.

    `replay`: other material, of which so much is mixed in that it is `config.replay.share` of the examples; all of it if that
    is not enough. Counters: examples (all), later_turns (answers in them after the first), replayed (of the examples),
    replay_lacking (how many more were wanted), empty_captions, untrainable (left out, for the processor refuses the image or
    the prompt).

    Raises:
        StageInputError: nothing to learn, or a share to replay without material.
    """
    from tasks.core.train.sft import train_sft

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
    examples = _examples(images, samples, rows)
    wanted = replay_count(config.replay.share, len(examples))
    replayed = draw_replayed(replay, wanted, seed) if replay else []
    if replay and replayed:
        others = [row for conversation in replayed for row in conversation]
        examples += _examples(replay.images, replay.samples, others)  # the trainer shuffles
    loaded = fresh_policy(policy)
    with training_run("finetune", config, seed, len(examples), config.batch_size) as run:
        figures = train_sft(loaded, examples, run)
    untrainable = int(figures.pop("untrainable", 0))
    counted = {
        "examples": len(examples),
        "later_turns": sum(len(example.later) for example in examples),
        "replayed": len(replayed),
        "replay_lacking": wanted - len(replayed),
        "empty_captions": len(searched) - len(rows),
        "untrainable": untrainable,
    }
    return train_result(config, policy, loaded, shown_of(examples), figures, counted)


def _examples(images: Table[Image], samples: Table[Sample], captions: Sequence[Caption]) -> list[Example]:
    """Captions with their images and prompts, by conversation."""
    from tasks.core.train.sft import Example

    prompted = lake.read_rows(Sample, samples)
    prompts = {sample.sample_id: sample.prompt for sample in prompted}
    pictures = StoredImages(images, [row.image_id for row in captions])
    return [
        Example(
            pictures.picture(first.image_id),
            prompts[first.sample_id],
            first.text,
            tuple((prompts[row.sample_id], row.text) for row in later),
        )
        for first, *later in conversations(prompted, captions)
    ]
