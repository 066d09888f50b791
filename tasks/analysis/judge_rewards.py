"""Judge rewards: what several rewards of the same rollouts are worth, against the truth and against one another."""

from __future__ import annotations

from collections.abc import Mapping

from storage import lake
from storage.artifacts import ArtifactRef, StageOutput
from storage.schema import Annotation, Metric, Reward, Sample
from tasks.configs.evaluate import EvaluateConfig
from tasks.core.analysis.observations import wrong
from tasks.core.analysis.reward_quality import Scored, quality
from tasks.core.benchmarks.chair import true_objects
from tasks.core.benchmarks.estimates import Intervals, Source, metric_rows
from tasks.stage.runtime import RuntimeConfig
from tasks.stage.stage import StageInputError, stage


@stage(reads_annotations=True)
def judge_rewards(
    config: EvaluateConfig,
    rewards: dict[str, ArtifactRef],
    samples: ArtifactRef,
    annotations: ArtifactRef | None,
    *,
    runtime: RuntimeConfig,
    label: str = "",
) -> StageOutput:
    """Tables of metrics of benchmark `rewards`, one for each of `rewards` under its name; intervals resample images.

    Metrics: `auc` (true above hallucinated sentences, within an image; not without annotations) and `rank: OTHER` (Spearman's
    correlation within an image).

    Args:
        config: how intervals are made.
        rewards: name -> rewards of one and the same table of rollouts.
        samples: theirs.
        annotations: of their images; None: there are none.
        runtime: machine matters.
        label: for people.

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
        found = quality(scored)
    except ValueError as error:
        raise StageInputError(f"{', '.join(rewards)}: {error}") from error
    intervals, refs = Intervals(config.bootstrap, config.confidence), {}
    for name, ratios in found.items():
        measured = {metric: ratio for metric, ratio in ratios.items() if len(ratio.top)}
        refs[name] = lake.publish(Metric, metric_rows(measured, Source("base", name, "rewards"), intervals))
    return StageOutput(refs=refs)


def _scored(rewards: ArtifactRef, image_of: Mapping[str, str], truth: Mapping[str, set[str]]) -> list[Scored]:
    rows = []
    for row in lake.read_rows(Reward, rewards):
        image = image_of[row.sample_id]
        rows.append(Scored(image, row.sentence, row.score, wrong(row.sentence, truth[image]) if truth else None))
    return rows
