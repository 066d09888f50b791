"""Stage 3, label: a reward for every sentence of every rollout, from its score.

The light half, and not sharded: it sees all scores, because the margin may be a quantile of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from storage import lake
from storage.artifacts import ArtifactRef, StageOutput
from storage.schema import Reward
from tasks.configs.reward import FixedTau, LabelConfig, QuantileTau
from tasks.core.reward.shaping import otsu_threshold, quantile_margin, shape_scores
from tasks.stage.runtime import RuntimeConfig
from tasks.stage.stage import StageInputError, stage


@stage()
def label(config: LabelConfig, rewards: ArtifactRef, *, runtime: RuntimeConfig, label: str = "") -> StageOutput:
    """Shape all scores by the margin rule. Output: rewards; fact: tau."""
    rows = lake.read_rows(Reward, rewards)
    scores = np.array([row.score for row in rows if row.score is not None])
    if not len(scores):
        raise StageInputError("no sentence has a score: the policy answered nothing; look at the rollouts table")
    if isinstance(config.tau, QuantileTau):
        tau = quantile_margin(scores, config.tau.q)
    elif isinstance(config.tau, FixedTau):
        tau = config.tau.value
    else:
        tau = otsu_threshold(scores)
    shaped = iter(shape_scores(scores, shaping=config.shaping, margin=tau, alpha=config.alpha))
    done = [replace(row, shaped=float(next(shaped))) if row.score is not None else row for row in rows]
    return StageOutput(
        refs={"rewards": lake.publish(Reward, done)},
        facts={
            "tau": tau,
            "below_tau": float((scores < tau).mean()),
            "mean_score": float(scores.mean()),
            **_answer_scores(rows),
        },
    )


def _answer_scores(rows: Sequence[Reward]) -> dict[str, float]:
    """Mean and standard deviation of the answers' own mean scores: what SWIRES calibrates its cutoff on."""
    answers: dict[str, list[float]] = {}
    for row in rows:
        if row.score is not None:
            answers.setdefault(row.rollout_id, []).append(row.score)
    means = np.array([np.mean(scores) for scores in answers.values()])
    return {"answer_mean": float(means.mean()), "answer_std": float(means.std())}
