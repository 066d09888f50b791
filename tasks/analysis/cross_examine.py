"""Cross-examine: the policy judges pairs of answers in both orders; beside it the scorer and V on the same pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from storage import lake
from storage.artifacts import Table
from storage.schema import Annotation, Image, Metric, Sample, SearchStep
from tasks.configs.evaluate import EvaluateConfig
from tasks.core.analysis.observations import guide_of
from tasks.core.analysis.pair_verdicts import Pair, examine, guide_counts, guides_of, pairs_of, policy_counts
from tasks.core.benchmarks.chair import true_objects
from tasks.core.benchmarks.estimates import Intervals, Source, metric_rows
from tasks.core.metrics import Ratio
from tasks.models.engine import jobs_of, open_engine
from tasks.models.handles import PolicyHandle
from tasks.models.loading import Pictures, load_policy
from tasks.stage.progress import progress
from tasks.stage.results import StageResult
from tasks.stage.stage import stage


@dataclass(frozen=True)
class VerdictsResult(StageResult):
    """Figures of benchmark `judge` for each judge: policy, scorer, value. See `tasks.core.analysis.pair_verdicts`."""

    metrics: dict[str, Table[Metric]]


@stage(reads_annotations=True)
def cross_examine(
    config: EvaluateConfig,
    policy: PolicyHandle,
    images: Table[Image],
    samples: Table[Sample],
    annotations: Table[Annotation],
    *,
    scores: Table[SearchStep],
    values: Table[SearchStep],
) -> VerdictsResult:
    """Which judge picks the better of two answers: `scores` and `values` are traces of best_of_n over the same answers."""
    rows = lake.read_rows(Sample, samples)
    objects = {row.image_id: true_objects(row.objects, row.captions) for row in lake.read_rows(Annotation, annotations)}
    truth = {row.sample_id: objects[row.image_id] for row in rows}
    by_score, by_value = lake.read_rows(SearchStep, scores), lake.read_rows(SearchStep, values)
    pairs = pairs_of(by_score, truth)
    ids = sorted(truth)
    replies = _replies(rows, pairs, policy, images)
    counts = {
        "policy": policy_counts(pairs, [replies[pair] for pair in pairs], ids),
        "scorer": guide_counts(pairs, guides_of(by_score, guide_of), ids),
        "value": guide_counts(pairs, guides_of(by_value, guide_of), ids),
    }
    return VerdictsResult({judge: _metrics(judge, ratios, config) for judge, ratios in counts.items()})


def _metrics(judge: str, ratios: Mapping[str, Ratio], config: EvaluateConfig) -> Table[Metric]:
    rows = metric_rows(ratios, Source("base", judge, "judge"), Intervals(config.bootstrap, config.confidence))
    rows = [replace(row, n=int(ratios[row.metric].bottom.sum())) for row in rows]
    return lake.publish(Metric, rows)


def _replies(
    rows: list[Sample], pairs: list[Pair], policy: PolicyHandle, images: Table[Image]
) -> dict[Pair, tuple[str, str]]:
    """The policy's verdicts on every pair, in order and swapped."""
    of_sample: dict[str, list[Pair]] = {}
    for pair in pairs:
        of_sample.setdefault(pair.sample_id, []).append(pair)
    todo = [row for row in rows if row.sample_id in of_sample]
    engine = open_engine(load_policy(policy), top_p=1.0)
    jobs = jobs_of(
        todo,
        Pictures(images, todo),
        lambda sample: examine(sample.prompt, of_sample[sample.sample_id]),
        seed=("examine",),
    )
    replies: dict[Pair, tuple[str, str]] = {}
    with progress("cross_examine", len(pairs), unit="pairs") as advance:
        for index, result in engine.run(jobs):
            texts = [row.proposal.text for row in result.trace]
            for pair, in_order, swapped in zip(of_sample[todo[index].sample_id], texts[::2], texts[1::2], strict=True):
                replies[pair] = in_order, swapped
                advance(1)
    return replies
