"""Shares of answers to questions beside how many are right: as another subject's, or with any conclusion at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from storage import lake
from storage.artifacts import Table
from storage.schema import Metric, Score
from tasks.configs.evaluate import EvaluateConfig
from tasks.core.benchmarks.estimates import Intervals, Source, metric_rows
from tasks.core.metrics import Ratio
from tasks.stage.quarantine import StageInputError
from tasks.stage.results import StageResult
from tasks.stage.stage import stage


@dataclass(frozen=True)
class SharesResult(StageResult):
    """Figures of benchmark `answers`."""

    metrics: Table[Metric]


@stage()
def sameness(config: EvaluateConfig, scores: Table[Score], other: Table[Score], *, subject: str) -> SharesResult:
    """Metric `same_answers`: share of equal answers to questions, outer blanks aside; both are `scores` of `evaluate_answers`.

    Accuracy hides what changes among guesses: half of them stay right whatever happens. This does not.

    Raises:
        StageInputError: answers to other questions.
    """
    mine, theirs = _texts(scores), _texts(other)
    if mine.keys() != theirs.keys() or not mine:
        raise StageInputError(
            f"{subject} has answers to {len(mine)} questions, the other to {len(theirs)}, "
            f"{len(mine.keys() & theirs.keys())} in common: want the same, at least one"
        )
    return _share(config, "same_answers", {item: mine[item] == theirs[item] for item in mine}, subject)


@stage()
def concluding(config: EvaluateConfig, scores: Table[Score], *, subject: str) -> SharesResult:
    """Metric `concluded`: share of answers that conclude anything, right or wrong."""
    conclusions = _texts(scores, "said")
    return _share(config, "concluded", {item: bool(text) for item, text in conclusions.items()}, subject)


def _share(config: EvaluateConfig, metric: str, counted: Mapping[str, bool], subject: str) -> SharesResult:
    """A share of the questions with its interval."""
    ids = sorted(counted)
    share = Ratio(np.array([float(counted[item_id]) for item_id in ids]), np.ones(len(ids)))
    intervals = Intervals(config.bootstrap, config.confidence)
    rows = metric_rows({metric: share}, Source(subject, "greedy", "answers"), intervals)
    return SharesResult(lake.publish(Metric, rows))


def _texts(scores: Table[Score], part: str = "text") -> dict[str, str]:
    """Question -> the answer's text, or only what it concludes (`said`)."""
    rows = lake.read_rows(Score, scores)
    return {row.item_id: json.loads(row.detail)[part].strip() for row in rows if row.detail and row.metric == "right"}
