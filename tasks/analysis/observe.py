"""How a search went on the benchmark, and how good its guide was. For experiments; both stages may read annotations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from storage import lake
from storage.artifacts import Table
from storage.schema import Annotation, Caption, Metric, Sample, SearchStep, Value
from tasks.configs.evaluate import EvaluateConfig
from tasks.core.analysis import observations as seen
from tasks.core.benchmarks.chair import true_objects
from tasks.core.benchmarks.estimates import Intervals, Source, clustered_estimate, estimate_rows, metric_rows
from tasks.core.metrics import Estimate, Ratio, without_interval
from tasks.core.value.ranking import held_out, ranking_of
from tasks.stage.results import StageResult
from tasks.stage.stage import stage

LEAST = 20  # sentences that a figure of one position needs
RESAMPLES = 500  # of rank correlations and AUCs, each of which sorts all sentences


@dataclass(frozen=True)
class ObservationsResult(StageResult):
    """Figures of benchmark `search`; see `tasks.core.analysis.observations`."""

    metrics: Table[Metric]


@dataclass(frozen=True)
class AppraisalResult(StageResult):
    """Figures of benchmark `value`; NAME@I is the figure of the sentences at position I."""

    metrics: Table[Metric]


@stage(reads_annotations=True)
def observe(
    config: EvaluateConfig,
    captions: Table[Caption],
    trace: Table[SearchStep],
    samples: Table[Sample],
    annotations: Table[Annotation],
    *,
    subject: str,
    decoding: str,
    other: tuple[Table[Caption], Table[SearchStep]] | None = None,
) -> ObservationsResult:
    """How a search went: why it stopped, what it chose, what it refined.

    `other`: captions and trace of another search of the same samples; how often both agree is measured, too.
    """
    rows = sorted(lake.read_rows(Caption, captions), key=lambda row: row.sample_id)
    steps = lake.read_rows(SearchStep, trace)
    ratios = seen.habits(rows, steps, _truth(samples, annotations))
    if other is not None:
        texts = {row.sample_id: row.text for row in lake.read_rows(Caption, other[0])}
        ratios |= seen.agreement(rows, steps, texts, lake.read_rows(SearchStep, other[1]))
    metrics = metric_rows(ratios, Source(subject, decoding, "search"), Intervals(config.bootstrap, config.confidence))
    return ObservationsResult(lake.publish(Metric, metrics))


@stage(reads_annotations=True)
def appraise(
    config: EvaluateConfig,
    trace: Table[SearchStep],
    samples: Table[Sample],
    annotations: Table[Annotation],
    *,
    values: Table[Value] | None = None,
    subject: str,
    decoding: str,
) -> AppraisalResult:
    """Does a guide separate true sentences from hallucinated ones, and does V predict what follows? Overall, and by position.

    Metrics `auc` (within an image, mean) and `auc_pooled`; with the held-out `values` of a V its `rank_within` and `auc_within`
    (with the Monte-Carlo return, within an image and a position: what the health check reads), `spearman` over all sentences,
    `spread` and `td_error`.
    """
    sentences = seen.judged_sentences(lake.read_rows(SearchStep, trace), _truth(samples, annotations))
    figures = _ranking(sentences, config)
    if values is not None:
        figures |= _returns(lake.read_rows(Value, values), config)
    metrics = estimate_rows(figures, Source(subject, decoding, "value"))
    return AppraisalResult(lake.publish(Metric, metrics))


def _ranking(sentences: Sequence[seen.Judged], config: EvaluateConfig) -> dict[str, Estimate]:
    """AUCs of a guide: within images, their mean; over all; and over all at each position."""
    aucs = np.array(seen.ranking_aucs(sentences))
    intervals = Intervals(config.bootstrap, config.confidence)
    within = without_interval(float("nan"), 0)
    if len(aucs):
        within = intervals.estimate(Ratio(aucs, np.ones(len(aucs))))
    figures = {"auc": within}
    figures["auc_pooled"] = _clustered(sentences, lambda sentence: sentence.group, seen.pooled_auc, config)
    for step in sorted({sentence.step for sentence in sentences}):
        here = [sentence for sentence in sentences if sentence.step == step]
        wrong = sum(sentence.wrong for sentence in here)
        if min(wrong, len(here) - wrong) >= LEAST / 2:
            figures[f"auc_pooled@{step}"] = _clustered(here, lambda sentence: sentence.group, seen.pooled_auc, config)
    return figures


def _returns(rows: Sequence[Value], config: EvaluateConfig) -> dict[str, Estimate]:
    """Rank correlation of V with what followed, over all and at each position; its spread and error."""

    def image(row: Value) -> str:
        return row.image_id

    within = ranking_of(held_out(rows), confidence=config.confidence)
    figures = {"rank_within": within.rank, "auc_within": within.auc}
    figures["spearman"] = _clustered(rows, image, seen.return_correlation, config)
    figures["spread"] = _clustered(rows, image, lambda some: float(np.std([row.value for row in some])), config)
    figures["td_error"] = _clustered(
        rows, image, lambda some: float(np.mean([abs(row.td_target - row.value) for row in some])), config
    )
    for step in sorted({row.step for row in rows}):
        here = [row for row in rows if row.step == step]
        if len(here) >= LEAST:
            figures[f"spearman@{step}"] = _clustered(here, image, seen.return_correlation, config)
    return figures


def _clustered(items: Sequence[Any], group: Any, statistic: Any, config: EvaluateConfig) -> Estimate:
    groups: dict[str, list[Any]] = {}
    for item in items:
        groups.setdefault(group(item), []).append(item)
    intervals = Intervals(min(RESAMPLES, config.bootstrap), config.confidence)
    return clustered_estimate(list(groups.values()), statistic, intervals)


def _truth(samples: Table[Sample], annotations: Table[Annotation]) -> dict[str, set[str]]:
    """The objects of every sample's image."""
    objects = {row.image_id: true_objects(row.objects, row.captions) for row in lake.read_rows(Annotation, annotations)}
    return {row.sample_id: objects[row.image_id] for row in lake.read_rows(Sample, samples)}
