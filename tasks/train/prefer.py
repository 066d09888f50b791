"""The light half of DPO: of every prompt the best of the run's own answers against the worst."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from storage import lake
from storage.artifacts import Table
from storage.schema import Image, Preference, Reward, Rollout, Sample
from tasks.configs.train import DpoSettings
from tasks.core.train.preferences import Pair, WorthyAnswer, best_against_worst
from tasks.models.answer_values import PromptedAnswer, mean_values, sentence_values
from tasks.models.handles import ValueHandle
from tasks.models.loading import load_images
from tasks.stage.progress import progress
from tasks.stage.quarantine import StageInputError
from tasks.stage.results import StageResult
from tasks.stage.stage import stage

_ANSWERS = 256  # valued together: what is held in memory


@dataclass(frozen=True)
class PreferencesResult(StageResult):
    """Pairs of answers, the better one first."""

    preferences: Table[Preference]
    pairs: int
    mean_gap: float  # in worth


@stage()
def prefer(
    config: DpoSettings,
    samples: Table[Sample],
    rollouts: Table[Rollout],
    rewards: Table[Reward],
    *,
    value: ValueHandle | None = None,
    images: Table[Image] | None = None,
) -> PreferencesResult:
    """Pair answers by their worth: the mean shaped reward of their scored sentences, or the mean of V over all sentences.

    `by: value` needs the value model and the images. Answers without a scored sentence (by reward) or without any (by value)
    are left out and counted.
    """
    sampled = {sample.sample_id: sample for sample in lake.read_rows(Sample, samples)}
    answers = lake.read_rows(Rollout, rollouts)
    if config.by == "reward":
        worth = _mean_rewards(lake.read_rows(Reward, rewards))
    elif value is None or images is None:
        raise StageInputError(
            "finetune.dpo.by=value ranks answers by a value model: give prefer value and images, "
            "or rank them by reward: --set finetune.dpo.by=reward"
        )
    else:
        worth = _mean_values(answers, sampled, value, images)
    known = [
        WorthyAnswer(answer.sample_id, answer.rollout_id, answer.text, worth[answer.rollout_id])
        for answer in answers
        if answer.rollout_id in worth
    ]
    choice = best_against_worst(known, min_gap=config.min_gap)
    if not choice.pairs:
        why = (
            ", ".join(f"{count} {reason}" for reason, count in sorted(choice.skipped.items()))
            or "no answer has a worth"
        )
        raise StageInputError(
            f"no prompt has two answers to choose between ({why}): raise rollout.temperatures, or lower "
            f"finetune.dpo.min_gap ({config.min_gap:g}); see the rollouts and rewards tables"
        )
    rows = [_row(pair, sampled[pair.chosen.sample_id].image_id) for pair in choice.pairs]
    return PreferencesResult(
        preferences=lake.publish(Preference, rows),
        pairs=len(rows),
        mean_gap=float(np.mean([pair.gap for pair in choice.pairs])),
        counters={"answers": len(answers), "unranked": len(answers) - len(known), **choice.skipped},
    )


def _mean_rewards(rewards: Sequence[Reward]) -> dict[str, float]:
    """Mean shaped reward of every answer's scored sentences, by rollout."""
    by_rollout: dict[str, list[float]] = {}
    for row in rewards:
        if row.shaped is not None:
            by_rollout.setdefault(row.rollout_id, []).append(row.shaped)
    return {rollout_id: float(np.mean(shaped)) for rollout_id, shaped in by_rollout.items()}


def _mean_values(
    answers: Sequence[Rollout], sampled: dict[str, Sample], value: ValueHandle, images: Table[Image]
) -> dict[str, float]:
    """Mean V of every answer's sentences, by rollout."""
    read = sentence_values(value)
    means: dict[str, float] = {}
    with progress("prefer", len(answers), unit="answers") as advance:
        for start in range(0, len(answers), _ANSWERS):
            part = answers[start : start + _ANSWERS]
            prompts = [sampled[answer.sample_id] for answer in part]
            pictures = load_images(images, [sample.image_id for sample in prompts])
            prompted = [
                PromptedAnswer(pictures[sample.image_id], sample.prompt, answer.text)
                for answer, sample in zip(part, prompts, strict=True)
            ]
            values = zip(part, mean_values(read, prompted), strict=True)
            means |= {answer.rollout_id: mean for answer, mean in values if mean is not None}
            advance(len(part))
    return means


def _row(pair: Pair, image_id: str) -> Preference:
    return Preference(
        sample_id=pair.chosen.sample_id,
        image_id=image_id,
        chosen=pair.chosen.rollout_id,
        rejected=pair.rejected.rollout_id,
        chosen_text=pair.chosen.text,
        rejected_text=pair.rejected.text,
        chosen_worth=pair.chosen.worth,
        rejected_worth=pair.rejected.worth,
    )
