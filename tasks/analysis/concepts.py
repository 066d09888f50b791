"""Concepts: CHAIR by kind of object, of one subject and paired with another's. For experiments."""

from __future__ import annotations

from dataclasses import dataclass

from storage import lake
from storage.artifacts import Table
from storage.coco_categories import CATEGORIES
from storage.schema import Annotation, Caption, Comparison, Metric, Rollout, Sample
from tasks.configs.evaluate import EvaluateConfig
from tasks.core.analysis import concepts as core
from tasks.core.benchmarks.chair import true_objects
from tasks.core.benchmarks.estimates import Intervals, Source, comparison_rows, metric_rows
from tasks.stage.quarantine import StageInputError
from tasks.stage.results import StageResult
from tasks.stage.stage import stage

SUPERCATEGORY = {category["name"]: category["supercategory"] for category in CATEGORIES}
LEAST = 30  # mentions in the reference's captions that a group stands on
BENCHMARK = "concepts"


@dataclass(frozen=True)
class ConceptsResult(StageResult):
    """CHAIRi and Recall by kind of object, and their differences: subject minus reference."""

    metrics: Table[Metric]
    comparisons: Table[Comparison]


@dataclass(frozen=True)
class ObjectKindsResult(StageResult):
    """Object -> whether it is often made up."""

    kinds: dict[str, str]


@stage(reads_annotations=True)
def concepts(
    config: EvaluateConfig,
    captions: Table[Caption],
    reference: Table[Caption],
    annotations: Table[Annotation],
    *,
    subject: str,
    other: str,
    kinds: dict[str, str] | None = None,
) -> ConceptsResult:
    """CHAIRi and Recall by kind of object.

    Groups are those that the reference names at least LEAST times, so that they are the same for all subjects.

    Args:
        config: how intervals are made.
        captions: of the benchmark's samples.
        reference: another subject's captions of the same ones.
        annotations: of the benchmark's images.
        subject: whose captions they are.
        other: the reference's name.
        kinds: those of `judge_objects`; None: supercategories alone.

    Raises:
        StageInputError: captions of other samples.
    """
    truth = _truth(annotations)
    mine, theirs = _by_sample(captions), _by_sample(reference)
    if mine.keys() != theirs.keys():
        raise StageInputError(
            f"{subject} has captions of {len(mine)} samples, {other} of {len(theirs)}, "
            f"{len(mine.keys() & theirs.keys())} in common: a paired comparison needs the same ones"
        )
    ids = sorted(mine)
    described = [core.AnnotatedCaption(mine[sample_id].text, truth[mine[sample_id].image_id]) for sample_id in ids]
    before = [core.AnnotatedCaption(theirs[sample_id].text, truth[theirs[sample_id].image_id]) for sample_id in ids]
    groups = core.groups_of(kinds or {}, SUPERCATEGORY)
    groups = {name: groups[name] for name in core.frequent_groups(before, groups, LEAST)}
    after, past = core.group_ratios(described, groups), core.group_ratios(before, groups)
    intervals = Intervals(config.bootstrap, config.confidence)
    source, against = Source(subject, "greedy", BENCHMARK), Source(other, "greedy", BENCHMARK)
    metrics = metric_rows(after, source, intervals)
    pairs = comparison_rows(source, against, after, past, intervals)
    return ConceptsResult(metrics=lake.publish(Metric, metrics), comparisons=lake.publish(Comparison, pairs))


@stage(reads_annotations=True)
def judge_objects(
    rollouts: Table[Rollout], samples: Table[Sample], annotations: Table[Annotation]
) -> ObjectKindsResult:
    """Which objects a policy often makes up, by its answers about training images, which no benchmark holds."""
    truth = _truth(annotations)
    image_of = {row.sample_id: row.image_id for row in lake.read_rows(Sample, samples)}
    answers = [
        core.AnnotatedCaption(row.text, truth[image_of[row.sample_id]]) for row in lake.read_rows(Rollout, rollouts)
    ]
    return ObjectKindsResult(kinds=dict(sorted(core.object_kinds(answers).items())))


def _truth(annotations: Table[Annotation]) -> dict[str, set[str]]:
    rows = lake.read_rows(Annotation, annotations)
    return {row.image_id: true_objects(row.objects, row.captions) for row in rows}


def _by_sample(captions: Table[Caption]) -> dict[str, Caption]:
    return {row.sample_id: row for row in lake.read_rows(Caption, captions)}
