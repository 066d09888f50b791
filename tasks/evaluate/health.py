"""The health check: can a loop improve this base policy with this scorer?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from storage import lake
from storage.artifacts import Table
from storage.schema import Annotation, Metric, Reward, Sample
from tasks.configs.evaluate import HealthConfig
from tasks.core.benchmarks.estimates import Source, estimate_rows
from tasks.core.benchmarks.mentions import find_mentions
from tasks.core.metrics import Estimate, grouped_auc, without_interval
from tasks.evaluate.evaluate import truth_of
from tasks.stage.results import StageResult
from tasks.stage.stage import stage


@dataclass(frozen=True)
class HealthResult(StageResult):
    """What was measured, and which bounds it is outside of."""

    metrics: Table[Metric]
    problems: list[str]
    scorer_auc: float  # mean within an image


@stage(reads_annotations=True)
def health(
    config: HealthConfig,
    metrics: Table[Metric],
    rewards: Table[Reward],
    samples: Table[Sample],
    annotations: Table[Annotation],
    *,
    subject: str,
) -> HealthResult:
    """Hallucination and recall of the base, and whether the scorer separates true from false sentences of one image."""
    aucs, pooled = _scorer_auc(rewards, samples, annotations)
    chair = {row.metric: row.value for row in lake.read_rows(Metric, metrics) if row.benchmark == "chair"}
    auc = float(np.mean(aucs)) if aucs else float("nan")
    spread = float(np.std(aucs, ddof=1) / np.sqrt(len(aucs))) if len(aucs) > 1 else float("nan")
    figures = {
        "scorer_auc": Estimate(auc, spread, auc - 1.96 * spread, auc + 1.96 * spread, len(aucs)),
        "scorer_auc_pooled": without_interval(pooled, len(aucs)),
    }
    rows = estimate_rows(figures, Source(subject, "rollouts", "health"))
    checks = [
        ("scorer_auc", auc, config.min_scorer_auc, 1.0, "the scorer doesn't separate true from hallucinated sentences"),
        (
            "chair_i",
            chair["chair_i"],
            config.min_chair_i,
            config.max_chair_i,
            "the base's hallucination is out of range",
        ),
        ("recall", chair["recall"], config.min_recall, 1.0, "the base misses what is in the images"),
    ]
    problems = [
        f"{name} {value:.3f} is outside [{low:g}, {high:g}]: {meaning}"
        for name, value, low, high, meaning in checks
        if not low <= value <= high
    ]
    return HealthResult(metrics=lake.publish(Metric, rows), problems=problems, scorer_auc=auc)


def _scorer_auc(
    rewards: Table[Reward], samples: Table[Sample], annotations: Table[Annotation]
) -> tuple[list[float], float]:
    """AUCs within the images that have both kinds of sentences, and the AUC over all sentences.

    A sentence is hallucinated if it mentions an absent object, true if all it mentions are there; others don't count.
    """
    truth = truth_of(annotations)
    image_of = {sample.sample_id: sample.image_id for sample in lake.read_rows(Sample, samples)}
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
