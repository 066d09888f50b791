"""Stage 3, shape_rewards: a reward for every sentence of every rollout, from its score.

The light half, and not sharded: it needs all scores, because the margin may be a quantile of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from storage import lake
from storage.artifacts import Table
from storage.schema import Reward
from tasks.configs.reward import FixedTau, LabelConfig, QuantileTau
from tasks.core.reward.shaping import end_value_of, otsu_threshold, quantile_margin, shape_scores
from tasks.stage.quarantine import StageInputError
from tasks.stage.results import StageResult
from tasks.stage.stage import stage


@dataclass(frozen=True)
class RewardsResult(StageResult):
    """Shaped rewards, and what the scores look like."""

    rewards: Table[Reward]
    margin: float  # the threshold that the rewards were shaped with
    below_margin: float  # share of the scores under it
    mean_score: float
    answer_mean: (
        float  # mean and standard deviation of the answers' own mean scores: SWIRES calibrates its cutoff on them
    )
    answer_std: float
    end_value: float  # what ending an answer is worth on the scale of these rewards


@stage()
def shape_rewards(config: LabelConfig, scored: Table[Reward]) -> RewardsResult:
    """Shape all scores by the margin rule.

    Raises:
        StageInputError: no sentence has a score.
    """
    rows = lake.read_rows(Reward, scored)
    scores = np.array([row.score for row in rows if row.score is not None])
    if not len(scores):
        raise StageInputError("no sentence has a score: the policy answered nothing; look at the rollouts table")
    if isinstance(config.tau, QuantileTau):
        margin = quantile_margin(scores, config.tau.q)
    elif isinstance(config.tau, FixedTau):
        margin = config.tau.value
    else:
        margin = otsu_threshold(scores)
    shaped = iter(shape_scores(scores, shaping=config.shaping, margin=margin, alpha=config.alpha))
    rewards = [replace(row, shaped=float(next(shaped))) if row.score is not None else row for row in rows]
    means = _answer_means(rows)
    return RewardsResult(
        rewards=lake.publish(Reward, rewards),
        margin=margin,
        below_margin=float((scores < margin).mean()),
        mean_score=float(scores.mean()),
        answer_mean=float(means.mean()),
        answer_std=float(means.std()),
        end_value=end_value_of(config.shaping, margin),
    )


def _answer_means(rows: Sequence[Reward]) -> np.ndarray:
    """Mean score of every answer that has any, [answers]."""
    answers: dict[str, list[float]] = {}
    for row in rows:
        if row.score is not None:
            answers.setdefault(row.rollout_id, []).append(row.score)
    return np.array([np.mean(scores) for scores in answers.values()])
