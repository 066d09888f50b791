"""Combine: several rewards of the same sentences become one, and how alike they are is measured.

Not sharded: what a reward's scores are standardised by is their mean and deviation over all of the run's answers. The same
numbers go into a scorer, so that a search scores candidates as the rollouts were scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from storage import lake
from storage.artifacts import Checkpoint, ScorerCheckpoint, Table
from storage.schema import Agreement, Reward
from tasks.configs.reward import ScorerConfig
from tasks.core.models.combined import Scale, weighted_sum
from tasks.core.reward.agreement import agreements
from tasks.models.scorers import described, needed_by, publish_scorer
from tasks.stage.quarantine import StageInputError
from tasks.stage.results import StageResult
from tasks.stage.stage import stage

COMBINED = "combined"  # the sum's name beside the rewards'


@dataclass(frozen=True)
class CombineResult(StageResult):
    """Several rewards as one."""

    scored: Table[Reward]  # to be shaped
    scorer: ScorerCheckpoint  # scores a search's candidates the same way
    reward_agreement: Table[Agreement]
    needs: tuple[Checkpoint, ...]  # what the scorer refers to: it is stored as long as the scorer is
    means: dict[str, float]  # of each reward
    deviations: dict[str, float]


@stage()
def combine(
    config: ScorerConfig, scored: list[Table[Reward]], scorers: list[ScorerCheckpoint], names: list[str]
) -> CombineResult:
    """Weighted sum of rewards, each standardised over this run's sentences unless `scale` is raw.

    Args:
        config: weights and scale; `rewards` in the order of the lists.
        scored: the stage score's table of each reward, all of the same rollouts.
        scorers: the rewards' references.
        names: what they are called in tables; the second of one name becomes "NAME (2)".

    Raises:
        StageInputError: lists of different lengths, tables of other sentences, a reward that scored nothing, or, where
            scores are standardised, one that scored all sentences alike.
    """
    if not len(config.rewards) == len(scored) == len(scorers) == len(names) > 0:
        raise StageInputError(
            f"{len(config.rewards)} rewards, {len(scored)} tables, {len(scorers)} scorers and {len(names)} names: "
            "combine wants one of each for every reward of scorer.rewards"
        )
    names = _distinct(names)
    tables = [lake.read_rows(Reward, table) for table in scored]
    _check_same_sentences(tables, names)
    scores = [[row.score for row in table] for table in tables]
    moments = [_moments(column, name) for column, name in zip(scores, names, strict=True)]
    if config.scale == "standard":
        _check_spread(moments, names)
        scales = [Scale(r.weight, *moment) for r, moment in zip(config.rewards, moments, strict=True)]
    else:
        scales = [Scale(reward.weight) for reward in config.rewards]
    sums = weighted_sum(scores, scales)
    refs = {str(index): ref for index, ref in enumerate(scorers)}
    options = {"names": names, "scales": [asdict(scale) for scale in scales]}
    scorer = publish_scorer(described(COMBINED, options, refs))
    rows = _summed(tables, names, sums, scorer.digest)
    return CombineResult(
        scored=lake.publish(Reward, rows),
        scorer=scorer,
        reward_agreement=lake.publish(Agreement, _agreements(tables, names, sums)),
        needs=tuple(dict.fromkeys(needed_by(scorer))),
        means={name: mean for name, (mean, _) in zip(names, moments, strict=True)},
        deviations={name: deviation for name, (_, deviation) in zip(names, moments, strict=True)},
        counters={"sentences": len(rows), "unscored": sum(total is None for total in sums)},
    )


def _distinct(names: Sequence[str]) -> list[str]:
    """The names, with a number where one comes again or is the sum's."""
    taken = {COMBINED}
    distinct = []
    for name in names:
        number, new = 1, name
        while new in taken:
            number += 1
            new = f"{name} ({number})"
        taken.add(new)
        distinct.append(new)
    return distinct


def _check_same_sentences(tables: Sequence[Sequence[Reward]], names: Sequence[str]) -> None:
    keys = [[(row.rollout_id, row.step, row.sentence) for row in table] for table in tables]
    for name, other in zip(names, keys, strict=True):
        if other != keys[0]:
            differing = len(set(other) ^ set(keys[0]))
            raise StageInputError(
                f"rewards {names[0]} and {name} were given for {len(keys[0])} and {len(other)} sentences, {differing} of "
                "which only one of them scored: score the same rollouts with each"
            )


def _moments(scores: Sequence[float | None], name: str) -> tuple[float, float]:
    """(mean, standard deviation with divisor N) of the sentences that the reward scored."""
    numbers = np.array([score for score in scores if score is not None], dtype=np.float64)
    if not len(numbers):
        raise StageInputError(
            f"reward {name} scored none of {len(scores)} sentences; look at column reason of its table"
        )
    return float(numbers.mean()), float(numbers.std())


def _check_spread(moments: Sequence[tuple[float, float]], names: Sequence[str]) -> None:
    for name, (mean, deviation) in zip(names, moments, strict=True):
        # Equal numbers may differ from their mean in its last bits.
        if deviation <= 1e-12 * max(1.0, abs(mean)):
            raise StageInputError(
                f"reward {name} gave every sentence {mean:.6g}: it can't be standardised and ranks nothing; remove it from "
                "scorer.rewards, or set scorer.scale: raw"
            )


def _summed(
    tables: Sequence[Sequence[Reward]], names: Sequence[str], sums: Sequence[float | None], scorer: str
) -> list[Reward]:
    """One row a sentence, with the sum as its score."""
    rows = []
    for at, score in enumerate(sums):
        parts = [table[at] for table in tables]
        without = [name for name, part in zip(names, parts, strict=True) if part.score is None]
        rows.append(
            replace(
                parts[0],
                score=score,
                shaped=None,
                scorer=scorer,
                truncated=any(part.truncated for part in parts),
                reason=f"{', '.join(without)} gave none" if without else None,
            )
        )
    return rows


def _agreements(
    tables: Sequence[Sequence[Reward]], names: Sequence[str], sums: Sequence[float | None]
) -> list[Agreement]:
    """Rank correlations of every two rewards, and of each with the sum. An image has one prompt, so a sample is an image."""
    columns = {name: [row.score for row in table] for name, table in zip(names, tables, strict=True)}
    numbers = {
        name: np.array([np.nan if score is None else score for score in column], dtype=np.float64)
        for name, column in {**columns, COMBINED: list(sums)}.items()
    }
    return [Agreement(*pair) for pair in agreements(numbers, [row.sample_id for row in tables[0]])]
