"""Observe: how a search went on the benchmark, and what guided it was worth. For experiments; both may read annotations.

Outputs are tables of `metrics` with intervals, as evaluation's are; benchmark `search` or `value`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from storage import lake
from storage.artifacts import ArtifactRef, StageOutput
from storage.schema import Annotation, Caption, Metric, Sample, SearchStep, Value
from tasks.configs.evaluate import EvaluateConfig
from tasks.core.analysis import observations as seen
from tasks.core.benchmarks.chair import true_objects
from tasks.core.benchmarks.estimates import Intervals, Source, clustered_estimate, estimate_rows, metric_rows
from tasks.core.metrics import Estimate, Ratio, without_interval
from tasks.stage.runtime import RuntimeConfig
from tasks.stage.stage import stage

LEAST = 20  # sentences that a figure of one position stands on
RESAMPLES = 500  # of rank correlations and AUCs, each of which sorts all sentences


@stage(reads_annotations=True)
def observe(
    config: EvaluateConfig,
    captions: ArtifactRef,
    trace: ArtifactRef,
    samples: ArtifactRef,
    annotations: ArtifactRef,
    *,
    subject: str,
    decoding: str,
    other_captions: ArtifactRef | None = None,
    other_trace: ArtifactRef | None = None,
    runtime: RuntimeConfig,
    label: str = "",
) -> StageOutput:
    """How a search went: why it stopped, what it chose, what it refined; and how often another one says the same.

    Output: metrics, see `tasks.core.analysis.observations`.
    """
    rows = sorted(lake.read_rows(Caption, captions), key=lambda row: row.sample_id)
    steps = lake.read_rows(SearchStep, trace)
    found = seen.habits(rows, steps, _truth(samples, annotations))
    if other_captions is not None and other_trace is not None:
        others = {row.sample_id: row.text for row in lake.read_rows(Caption, other_captions)}
        found |= seen.agreement(rows, steps, others, lake.read_rows(SearchStep, other_trace))
    intervals = Intervals(config.bootstrap, config.confidence)
    metrics = metric_rows(found, Source(subject, decoding, "search"), intervals)
    return StageOutput(refs={"metrics": lake.publish(Metric, metrics)})


@stage(reads_annotations=True)
def appraise(
    config: EvaluateConfig,
    trace: ArtifactRef,
    samples: ArtifactRef,
    annotations: ArtifactRef,
    *,
    values: ArtifactRef | None = None,
    subject: str,
    decoding: str,
    runtime: RuntimeConfig,
    label: str = "",
) -> StageOutput:
    """Does a guide know true sentences from hallucinated ones, and does V know what follows? Overall, and by position.

    Output: metrics `auc` (within an image, mean), `auc_pooled`, `step_spread`; with the held-out `values` of a V `spearman`
    with the Monte-Carlo return, `spread` and `td_error`. NAME@I is the figure of the sentences at position I.
    """
    sentences = seen.judged_sentences(lake.read_rows(SearchStep, trace), _truth(samples, annotations))
    figures = _ranking(sentences, config)
    if values is not None:
        figures |= _returns(lake.read_rows(Value, values), config)
    metrics = estimate_rows(figures, Source(subject, decoding, "value"))
    return StageOutput(
        refs={"metrics": lake.publish(Metric, metrics)}, facts={row.metric: row.value for row in metrics}
    )


def _ranking(sentences: Sequence[seen.Judged], config: EvaluateConfig) -> dict[str, Estimate]:
    """AUCs of a guide: within images, their mean; over all; and over all at each position."""
    aucs = np.array(seen.ranking_aucs(sentences))
    intervals = Intervals(config.bootstrap, config.confidence)
    within = without_interval(float("nan"), 0)
    if len(aucs):
        within = intervals.estimate(Ratio(aucs, np.ones(len(aucs))))
    found = {"auc": within}
    found["auc_pooled"] = _clustered(sentences, lambda one: one.group, seen.pooled_auc, config)
    for step in sorted({one.step for one in sentences}):
        here = [one for one in sentences if one.step == step]
        if min(sum(one.wrong for one in here), sum(not one.wrong for one in here)) >= LEAST / 2:
            found[f"auc_pooled@{step}"] = _clustered(here, lambda one: one.group, seen.pooled_auc, config)
    return found


def _returns(rows: Sequence[Value], config: EvaluateConfig) -> dict[str, Estimate]:
    """Rank correlation of V with what followed, over all and at each position; its spread and error."""

    def image(row: Value) -> str:
        return row.rollout_id.split("-")[0]

    found = {"spearman": _clustered(rows, image, seen.return_correlation, config)}
    found["spread"] = _clustered(rows, image, lambda some: float(np.std([one.value for one in some])), config)
    found["td_error"] = _clustered(
        rows, image, lambda some: float(np.mean([abs(one.td_target - one.value) for one in some])), config
    )
    for step in sorted({row.step for row in rows}):
        here = [row for row in rows if row.step == step]
        if len(here) >= LEAST:
            found[f"spearman@{step}"] = _clustered(here, image, seen.return_correlation, config)
    return found


def _clustered(items: Sequence[Any], group: Any, statistic: Any, config: EvaluateConfig) -> Estimate:
    groups: dict[str, list[Any]] = {}
    for one in items:
        groups.setdefault(group(one), []).append(one)
    intervals = Intervals(min(RESAMPLES, config.bootstrap), config.confidence)
    return clustered_estimate(list(groups.values()), statistic, intervals)


def _truth(samples: ArtifactRef, annotations: ArtifactRef) -> dict[str, set[str]]:
    """The objects of every sample's image."""
    objects = {row.image_id: true_objects(row.objects, row.captions) for row in lake.read_rows(Annotation, annotations)}
    return {row.sample_id: objects[row.image_id] for row in lake.read_rows(Sample, samples)}
