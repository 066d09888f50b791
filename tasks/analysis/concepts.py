"""Concepts: CHAIR by kind of object, of one subject and paired with another's. For experiments."""

from __future__ import annotations

from storage import lake
from storage.artifacts import ArtifactRef, StageOutput
from storage.coco_categories import CATEGORIES
from storage.schema import Annotation, Caption, Comparison, Metric, Rollout, Sample
from tasks.configs.evaluate import EvaluateConfig
from tasks.core.analysis import concepts as core
from tasks.core.benchmarks.chair import true_objects
from tasks.core.benchmarks.estimates import Intervals, Source, comparison_rows, metric_rows
from tasks.stage.runtime import RuntimeConfig
from tasks.stage.stage import StageInputError, stage

SUPERCATEGORY = {one["name"]: one["supercategory"] for one in CATEGORIES}
LEAST = 30  # mentions in the reference's captions that a group stands on
BENCHMARK = "concepts"


@stage(reads_annotations=True)
def concepts(
    config: EvaluateConfig,
    captions: ArtifactRef,
    reference: ArtifactRef,
    annotations: ArtifactRef,
    *,
    subject: str,
    other: str,
    kinds: dict[str, str] | None = None,
    runtime: RuntimeConfig,
    label: str = "",
) -> StageOutput:
    """CHAIRi and Recall by kind of object. Outputs: metrics, comparisons (subject minus reference).

    Groups are those that the reference names at least LEAST times, so that they are the same for all subjects.

    Args:
        config: how intervals are made.
        captions: of the benchmark's samples.
        reference: another subject's captions of the same ones.
        annotations: of the benchmark's images.
        subject: whose captions they are.
        other: the reference's name.
        kinds: fact `kinds` of `judge_objects`; None: supercategories alone.
        runtime: machine matters.
        label: for people.

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
    annotated = [core.AnnotatedCaption(mine[i].text, truth[mine[i].image_id]) for i in ids]
    before = [core.AnnotatedCaption(theirs[i].text, truth[theirs[i].image_id]) for i in ids]
    groups = core.groups_of(kinds or {}, SUPERCATEGORY)
    groups = {name: groups[name] for name in core.frequent_groups(before, groups, LEAST)}
    after, past = core.group_ratios(annotated, groups), core.group_ratios(before, groups)
    intervals = Intervals(config.bootstrap, config.confidence)
    source, against = Source(subject, "greedy", BENCHMARK), Source(other, "greedy", BENCHMARK)
    metrics = metric_rows(after, source, intervals)
    pairs = comparison_rows(source, against, after, past, intervals)
    return StageOutput(refs={"metrics": lake.publish(Metric, metrics), "comparisons": lake.publish(Comparison, pairs)})


@stage(reads_annotations=True)
def judge_objects(
    rollouts: ArtifactRef, samples: ArtifactRef, annotations: ArtifactRef, *, runtime: RuntimeConfig, label: str = ""
) -> StageOutput:
    """Which objects a policy often makes up, by its answers about training images, which measure nothing.

    Fact: kinds, object -> its kind.
    """
    truth = _truth(annotations)
    image_of = {row.sample_id: row.image_id for row in lake.read_rows(Sample, samples)}
    answers = lake.read_rows(Rollout, rollouts)
    captions = [core.AnnotatedCaption(row.text, truth[image_of[row.sample_id]]) for row in answers]
    return StageOutput(facts={"kinds": dict(sorted(core.object_kinds(captions).items()))})


def _truth(annotations: ArtifactRef) -> dict[str, set[str]]:
    rows = lake.read_rows(Annotation, annotations)
    return {row.image_id: true_objects(row.objects, row.captions) for row in rows}


def _by_sample(captions: ArtifactRef) -> dict[str, Caption]:
    return {row.sample_id: row for row in lake.read_rows(Caption, captions)}
