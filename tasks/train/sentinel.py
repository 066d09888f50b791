"""Fine-tuning by pairs of next sentences after the same answer so far: SENTINEL's context-aware DPO."""

from __future__ import annotations

from storage import lake
from storage.artifacts import Table
from storage.schema import Image, Sample, SentencePair
from tasks.configs.train import SentinelConfig
from tasks.models.handles import PolicyHandle
from tasks.models.loading import StoredImages, fresh_policy
from tasks.stage.stage import stage
from tasks.train.training import TrainResult, shown_of, train_result, training_run


@stage()
def train_sentinel(
    config: SentinelConfig,
    policy: PolicyHandle,
    images: Table[Image],
    samples: Table[Sample],
    pairs: Table[SentencePair],
    *,
    seed: int,
) -> TrainResult:
    """Learn preferences between sentences. Figures: as of `train_dpo`, of the sentences alone.

    The loss covers the sentence; image, prompt and the answer so far are given. `config.batch_size` counts pairs; those that
    the processor refuses are left out and counted (untrainable).
    """
    from tasks.core.train.dpo import PreferencePair, train_dpo

    prompts = {sample.sample_id: sample.prompt for sample in lake.read_rows(Sample, samples)}
    rows = lake.read_rows(SentencePair, pairs)
    pictures = StoredImages(images, [row.image_id for row in rows])
    sentences = [
        PreferencePair(
            pictures.picture(row.image_id),
            prompts[row.sample_id],
            row.chosen_text,
            row.rejected_text,
            row.prefix,
            row.space,
        )
        for row in rows
    ]
    loaded = fresh_policy(policy)
    with training_run("train_sentinel", config, seed, len(sentences), config.batch_size) as run:
        figures = train_dpo(loaded, sentences, run, beta=config.sentinel.beta)
    counted = {"pairs": len(sentences), "untrainable": int(figures.pop("untrainable"))}
    return train_result(config, policy, loaded, shown_of(sentences), figures, counted)
