"""Stage 7, evaluate: CHAIR of captions on annotated images, and paired comparisons."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from storage import lake
from storage.artifacts import Table
from storage.schema import Annotation, Caption, Comparison, Metric, Sample, Score
from tasks.configs.evaluate import EvaluateConfig
from tasks.core.benchmarks.answers import AnswerItem, answer_ratios
from tasks.core.benchmarks.chair import (
    COUNTS,
    ChairItem,
    chair_item,
    chair_ratios,
    true_objects,
)
from tasks.core.benchmarks.estimates import Intervals, Source, comparison_rows, metric_rows
from tasks.core.metrics import Ratio
from tasks.stage.quarantine import StageInputError, check_nothing_lost
from tasks.stage.results import StageResult
from tasks.stage.stage import stage


@dataclass(frozen=True)
class EvaluateResult(StageResult):
    """What one subject was measured at."""

    scores: Table[Score]  # a row an item and count
    metrics: Table[Metric]  # with intervals
    figures: dict[str, float]  # the metrics' values by name


@stage(reads_annotations=True)
def evaluate(
    config: EvaluateConfig,
    captions: Table[Caption],
    samples: Table[Sample],
    annotations: Table[Annotation],
    *,
    subject: str,
    decoding: str,
) -> EvaluateResult:
    """CHAIR of one subject's captions of the benchmark's samples."""
    truth = truth_of(annotations)
    rows = lake.read_rows(Caption, captions)
    check_nothing_lost("evaluate", samples.rows or 0, len(rows), 0, 0.0, unit="samples")
    scores, items = [], []
    for row in rows:
        item, judged = chair_item(row.text, truth[row.image_id])
        items.append(item)
        mentions = [{**mention._asdict(), "hallucinated": wrong} for mention, wrong in judged]
        for name, count in zip(COUNTS, item, strict=True):
            detail = json.dumps({"caption": row.text, "mentions": mentions}) if name == "mentioned" else None
            scores.append(Score(subject, decoding, "chair", row.sample_id, name, float(count), detail))
    intervals = Intervals(config.bootstrap, config.confidence)
    metrics = metric_rows(chair_ratios(items), Source(subject, decoding, "chair"), intervals)
    return EvaluateResult(
        scores=lake.publish(Score, scores),
        metrics=lake.publish(Metric, metrics),
        figures={metric.metric: metric.value for metric in metrics},
    )


@dataclass(frozen=True)
class CompareResult(StageResult):
    """Paired differences of two subjects."""

    comparisons: Table[Comparison]


@stage()
def compare(config: EvaluateConfig, scores_a: Table[Score], scores_b: Table[Score]) -> CompareResult:
    """Paired differences a - b on the same items of one benchmark.

    Raises:
        StageInputError: scores of two benchmarks, or of different items.
    """
    a, b = _measured(scores_a), _measured(scores_b)
    if a.source.benchmark != b.source.benchmark:
        raise StageInputError(
            f"{a.source.subject} has scores of {a.source.benchmark}, {b.source.subject} of {b.source.benchmark}: "
            "want the same"
        )
    if a.items.keys() != b.items.keys():
        raise StageInputError(
            f"{a.source.subject} has {len(a.items)} items, {b.source.subject} {len(b.items)}, "
            f"{len(a.items.keys() & b.items.keys())} in common: a paired comparison needs the same ones"
        )
    ids = sorted(a.items)
    intervals = Intervals(config.bootstrap, config.confidence)
    rows = comparison_rows(a.source, b.source, a.ratios(ids), b.ratios(ids), intervals)
    return CompareResult(lake.publish(Comparison, rows))


def truth_of(annotations: Table[Annotation]) -> dict[str, set[str]]:
    """Image id -> the objects that are in it."""
    rows = lake.read_rows(Annotation, annotations)
    return {row.image_id: true_objects(row.objects, row.captions) for row in rows}


class _Measured(NamedTuple):
    """A scores table: whose, of which benchmark, and the rows of each item by metric."""

    source: Source
    items: Mapping[str, Mapping[str, Score]]

    def ratios(self, ids: list[str]) -> dict[str, Ratio]:
        """The benchmark's metrics over these items, in this order."""
        items = [self.items[item_id] for item_id in ids]
        if self.source.benchmark == "chair":
            return chair_ratios([ChairItem(**{name: int(item[name].value) for name in COUNTS}) for item in items])
        return answer_ratios([_answer_item(item["right"], item["staged"]) for item in items])


def _answer_item(right: Score, staged: Score) -> AnswerItem:
    detail = json.loads(right.detail or "{}")
    return AnswerItem(bool(right.value), bool(staged.value), detail["kind"], detail["words"])


def _measured(scores: Table[Score]) -> _Measured:
    items: dict[str, dict[str, Score]] = {}
    source = Source("", "", "")
    for row in lake.read_rows(Score, scores):
        source = Source(row.subject, row.decoding, row.benchmark)
        items.setdefault(row.item_id, {})[row.metric] = row
    return _Measured(source, items)
