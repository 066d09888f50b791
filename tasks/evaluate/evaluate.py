"""Stage 7, evaluate: CHAIR of captions on annotated images, paired comparisons, and the health of the loop's ground.

The only stages that may read annotations.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from storage import lake
from storage.artifacts import ArtifactRef, StageOutput
from storage.schema import Annotation, Caption, Comparison, Metric, Reward, Sample, Score
from tasks.configs.evaluate import EvaluateConfig, HealthConfig
from tasks.core.benchmarks.answers import AnswerItem, answer_ratios
from tasks.core.benchmarks.chair import (
    COUNTS,
    ChairItem,
    chair_item,
    chair_ratios,
    true_objects,
)
from tasks.core.benchmarks.estimates import Intervals, Source, comparison_rows, estimate_rows, metric_rows
from tasks.core.benchmarks.mentions import find_mentions
from tasks.core.metrics import Estimate, Ratio, grouped_auc, without_interval
from tasks.stage.runtime import RuntimeConfig
from tasks.stage.stage import StageInputError, check_nothing_lost, stage


@stage(reads_annotations=True)
def evaluate(
    config: EvaluateConfig,
    captions: ArtifactRef,
    samples: ArtifactRef,
    annotations: ArtifactRef,
    *,
    subject: str,
    decoding: str,
    runtime: RuntimeConfig,
    label: str = "",
) -> StageOutput:
    """CHAIR of one subject. Outputs: scores (a row an item and count), metrics (with intervals). Facts: the metrics."""
    truth = _truth(annotations)
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
    return StageOutput(
        refs={"scores": lake.publish(Score, scores), "metrics": lake.publish(Metric, metrics)},
        facts={metric.metric: metric.value for metric in metrics},
    )


@stage()
def compare(
    config: EvaluateConfig, scores_a: ArtifactRef, scores_b: ArtifactRef, *, runtime: RuntimeConfig, label: str = ""
) -> StageOutput:
    """Paired differences a - b on the same items of one benchmark. Output: comparisons."""
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
    return StageOutput(refs={"comparisons": lake.publish(Comparison, rows)})


@stage(reads_annotations=True)
def health(
    config: HealthConfig,
    metrics: ArtifactRef,
    rewards: ArtifactRef,
    samples: ArtifactRef,
    annotations: ArtifactRef,
    *,
    subject: str,
    runtime: RuntimeConfig,
    label: str = "",
) -> StageOutput:
    """Does the base hallucinate and see, and can the scorer tell within one image? Output: metrics. Facts: problems."""
    aucs, pooled = _scorer_auc(rewards, samples, annotations)
    base = {row.metric: row.value for row in lake.read_rows(Metric, metrics) if row.benchmark == "chair"}
    auc = float(np.mean(aucs)) if aucs else float("nan")
    spread = float(np.std(aucs, ddof=1) / np.sqrt(len(aucs))) if len(aucs) > 1 else float("nan")
    figures = {
        "scorer_auc": Estimate(auc, spread, auc - 1.96 * spread, auc + 1.96 * spread, len(aucs)),
        "scorer_auc_pooled": without_interval(pooled, len(aucs)),
    }
    rows = estimate_rows(figures, Source(subject, "rollouts", "health"))
    checks = [
        ("scorer_auc", auc, config.min_scorer_auc, 1.0, "the scorer can't tell true from hallucinated sentences"),
        (
            "chair_i",
            base["chair_i"],
            config.min_chair_i,
            config.max_chair_i,
            "the base's hallucination is out of range",
        ),
        ("recall", base["recall"], config.min_recall, 1.0, "the base does not see what is there"),
    ]
    problems = [
        f"{name} {value:.3f} is outside [{low:g}, {high:g}]: {meaning}"
        for name, value, low, high, meaning in checks
        if not low <= value <= high
    ]
    return StageOutput(refs={"metrics": lake.publish(Metric, rows)}, facts={"problems": problems, "scorer_auc": auc})


def _scorer_auc(rewards: ArtifactRef, samples: ArtifactRef, annotations: ArtifactRef) -> tuple[list[float], float]:
    """AUCs within the images that have both kinds of sentences, and the AUC over all sentences.

    A sentence is hallucinated if it mentions an absent object, true if all it mentions are there; others don't count.
    """
    truth = _truth(annotations)
    image_of = {one.sample_id: one.image_id for one in lake.read_rows(Sample, samples)}
    groups: dict[str, tuple[list[float], list[float]]] = {}
    for image_id, sentence, score in sorted(
        {
            (image_of[row.sample_id], row.sentence, row.score)
            for row in lake.read_rows(Reward, rewards)
            if row.score is not None
        }
    ):
        mentioned = {mention.object for mention in find_mentions(sentence)}
        if mentioned:
            good, bad = groups.setdefault(image_id, ([], []))
            (good if mentioned <= truth[image_id] else bad).append(score)
    arrays = {image_id: (np.array(good), np.array(bad)) for image_id, (good, bad) in groups.items()}
    everything = {
        "all": (
            np.concatenate([g for g, _ in arrays.values()] or [np.zeros(0)]),
            np.concatenate([b for _, b in arrays.values()] or [np.zeros(0)]),
        )
    }
    return grouped_auc(arrays)[1], grouped_auc(everything)[0]


def _truth(annotations: ArtifactRef) -> dict[str, set[str]]:
    rows = lake.read_rows(Annotation, annotations)
    return {row.image_id: true_objects(row.objects, row.captions) for row in rows}


class _Measured(NamedTuple):
    """A scores table: whose, of which benchmark, and the rows of each item by metric."""

    source: Source
    items: Mapping[str, Mapping[str, Score]]

    def ratios(self, ids: list[str]) -> dict[str, Ratio]:
        """The benchmark's metrics over these items, in this order."""
        items = [self.items[one] for one in ids]
        if self.source.benchmark == "chair":
            return chair_ratios([ChairItem(**{name: int(one[name].value) for name in COUNTS}) for one in items])
        return answer_ratios([_answer_item(one["right"], one["staged"]) for one in items])


def _answer_item(right: Score, staged: Score) -> AnswerItem:
    told = json.loads(right.detail or "{}")
    return AnswerItem(bool(right.value), bool(staged.value), told["kind"], told["words"])


def _measured(scores: ArtifactRef) -> _Measured:
    items: dict[str, dict[str, Score]] = {}
    source = Source("", "", "")
    for row in lake.read_rows(Score, scores):
        source = Source(row.subject, row.decoding, row.benchmark)
        items.setdefault(row.item_id, {})[row.metric] = row
    return _Measured(source, items)
