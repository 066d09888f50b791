"""Shares of answers to questions beside how many are right: as another subject's, or with any conclusion at all."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np

from storage import lake
from storage.artifacts import ArtifactRef, StageOutput
from storage.schema import Metric, Score
from tasks.configs.evaluate import EvaluateConfig
from tasks.core.benchmarks.estimates import Intervals, Source, metric_rows
from tasks.core.metrics import Ratio
from tasks.stage.runtime import RuntimeConfig
from tasks.stage.stage import StageInputError, stage


@stage()
def sameness(
    config: EvaluateConfig,
    scores: ArtifactRef,
    other: ArtifactRef,
    *,
    subject: str,
    runtime: RuntimeConfig,
    label: str = "",
) -> StageOutput:
    """Share of equal answers to questions, outer blanks aside; both are `scores` of `evaluate_answers`.

    Output: metrics (`same_answers` of benchmark `answers`).

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
    return _share(config, "same_answers", {one: mine[one] == theirs[one] for one in mine}, subject)


@stage()
def concluding(
    config: EvaluateConfig, scores: ArtifactRef, *, subject: str, runtime: RuntimeConfig, label: str = ""
) -> StageOutput:
    """Share of answers that conclude anything, right or wrong. Output: metrics (`concluded` of benchmark `answers`)."""
    return _share(config, "concluded", {one: bool(said) for one, said in _texts(scores, "said").items()}, subject)


def _share(config: EvaluateConfig, metric: str, counted: Mapping[str, bool], subject: str) -> StageOutput:
    """A share of the questions with its interval."""
    ids = sorted(counted)
    share = Ratio(np.array([float(counted[one]) for one in ids]), np.ones(len(ids)))
    intervals = Intervals(config.bootstrap, config.confidence)
    rows = metric_rows({metric: share}, Source(subject, "greedy", "answers"), intervals)
    return StageOutput(refs={"metrics": lake.publish(Metric, rows)})


def _texts(scores: ArtifactRef, part: str = "text") -> dict[str, str]:
    """Question -> what was answered, or only what that concludes (`said`)."""
    rows = lake.read_rows(Score, scores)
    return {row.item_id: json.loads(row.detail)[part].strip() for row in rows if row.detail and row.metric == "right"}
