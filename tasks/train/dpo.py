"""Fine-tuning by direct preference optimisation: the policy learns which of its own answers was better."""

from __future__ import annotations

from storage import lake
from storage.artifacts import Table
from storage.schema import Image, Preference, Sample
from tasks.configs.train import DpoConfig
from tasks.models.handles import PolicyHandle
from tasks.models.loading import StoredImages, fresh_policy
from tasks.stage.quarantine import StageInputError
from tasks.stage.stage import stage
from tasks.train.training import TrainResult, shown_of, train_result, training_run


@stage()
def train_dpo(
    config: DpoConfig,
    policy: PolicyHandle,
    images: Table[Image],
    samples: Table[Sample],
    preferences: Table[Preference],
    *,
    seed: int,
) -> TrainResult:
    """Learn preferences. Figures: accuracy, margins, how far it moved.

    `config.batch_size` counts pairs. An empty rejected answer is one to learn from, an empty chosen one is not: such pairs are
    left out and counted, and so are pairs that the processor refuses (untrainable).
    """
    from tasks.core.train.dpo import PreferencePair
    from tasks.core.train.dpo import train_dpo as run_dpo

    prompts = {sample.sample_id: sample.prompt for sample in lake.read_rows(Sample, samples)}
    preferred = lake.read_rows(Preference, preferences)
    rows = [row for row in preferred if row.chosen_text.strip()]
    if not rows:
        raise StageInputError("no preference to learn from: every better answer is empty; see the preferences table")
    pictures = StoredImages(images, [row.image_id for row in rows])
    pairs = [
        PreferencePair(pictures.picture(row.image_id), prompts[row.sample_id], row.chosen_text, row.rejected_text)
        for row in rows
    ]
    loaded = fresh_policy(policy)
    with training_run("train_dpo", config, seed, len(pairs), config.batch_size) as run:
        figures = run_dpo(loaded, pairs, run, beta=config.dpo.beta)
    untrainable = int(figures.pop("untrainable"))
    counted = {"pairs": len(pairs), "empty_chosen": len(preferred) - len(rows), "untrainable": untrainable}
    return train_result(config, policy, loaded, shown_of(pairs), figures, counted)
