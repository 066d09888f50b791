"""Judge rewards: what several rewards of the same rollouts are worth, against the truth and against one another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from storage import lake
from storage.artifacts import Table
from storage.schema import Annotation, Metric, Reward, Sample
from tasks.configs.evaluate import EvaluateConfig
from tasks.core.analysis.observations import wrong
from tasks.core.analysis.reward_quality import Scored, quality
from tasks.core.benchmarks.chair import true_objects
from tasks.core.benchmarks.estimates import Intervals, Source, metric_rows
from tasks.stage.quarantine import StageInputError
from tasks.stage.results import StageResult
from tasks.stage.stage import stage


@dataclass(frozen=True)
class RewardQualityResult(StageResult):
    """Figures of benchmark `rewards` by the reward's name; intervals resample images."""

    metrics: dict[str, Table[Metric]]


@stage(reads_annotations=True)
def judge_rewards(
    config: EvaluateConfig,
    rewards: dict[str, Table[Reward]],
    samples: Table[Sample],
    annotations: Table[Annotation] | None,
) -> RewardQualityResult:
    """What each of the rewards is worth.

    Metrics: `auc` (true above hallucinated sentences, within an image; not without annotations) and `rank: OTHER` (Spearman's
    correlation within an image).

    Args:
        config: how intervals are made.
        rewards: name -> rewards of one and the same table of rollouts.
        samples: theirs.
        annotations: of their images; None: there are none.

    Raises:
        StageInputError: rewards of different rollouts.
    """
    truth: dict[str, set[str]] = {}
    if annotations is not None:
        rows = lake.read_rows(Annotation, annotations)
        truth = {row.image_id: true_objects(row.objects, row.captions) for row in rows}
    image_of = {row.sample_id: row.image_id for row in lake.read_rows(Sample, samples)}
    scored = {name: _scored(ref, image_of, truth) for name, ref in rewards.items()}
    try:
        ratios_of = quality(scored)
    except ValueError as error:
        raise StageInputError(f"{', '.join(rewards)}: {error}") from error
    intervals, tables = Intervals(config.bootstrap, config.confidence), {}
    for name, ratios in ratios_of.items():
        measured = {metric: ratio for metric, ratio in ratios.items() if len(ratio.top)}
        tables[name] = lake.publish(Metric, metric_rows(measured, Source("base", name, "rewards"), intervals))
    return RewardQualityResult(metrics=tables)


def _scored(rewards: Table[Reward], image_of: Mapping[str, str], truth: Mapping[str, set[str]]) -> list[Scored]:
    rows = []
    for row in lake.read_rows(Reward, rewards):
        image = image_of[row.sample_id]
        rows.append(Scored(image, row.sentence, row.score, wrong(row.sentence, truth[image]) if truth else None))
    return rows
