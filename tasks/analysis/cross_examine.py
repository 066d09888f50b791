"""Cross-examine: the policy judges pairs of answers in both orders; beside it the scorer and V on the same pairs."""

from __future__ import annotations

from collections.abc import Mapping

from storage import lake
from storage.artifacts import ArtifactRef, StageOutput
from storage.schema import Annotation, Metric, Sample, SearchStep
from tasks.configs.evaluate import EvaluateConfig
from tasks.configs.policy import PolicyConfig
from tasks.core.analysis.observations import guide_of
from tasks.core.analysis.pair_verdicts import Pair, examine, guide_counts, guides_of, pairs_of, policy_counts
from tasks.core.benchmarks.chair import true_objects
from tasks.core.metrics import Ratio, bootstrap_draws, estimate
from tasks.core.seeds import seed_for
from tasks.models.loading import Pictures, load_policy
from tasks.stage.progress import progress
from tasks.stage.runtime import RuntimeConfig
from tasks.stage.stage import stage


@stage(reads_annotations=True)
def cross_examine(
    config: EvaluateConfig,
    model: PolicyConfig,
    policy: ArtifactRef,
    images: ArtifactRef,
    samples: ArtifactRef,
    annotations: ArtifactRef,
    *,
    scores: ArtifactRef,
    values: ArtifactRef,
    runtime: RuntimeConfig,
    label: str = "",
) -> StageOutput:
    """Who knows the better of two answers: `scores` and `values` are traces of best_of_n over the same answers.

    Outputs: policy, scorer, value, each a table of metrics of benchmark judge; see `tasks.core.analysis.pair_verdicts`.
    """
    rows = lake.read_rows(Sample, samples)
    objects = {row.image_id: true_objects(row.objects, row.captions) for row in lake.read_rows(Annotation, annotations)}
    truth = {row.sample_id: objects[row.image_id] for row in rows}
    by_score, by_value = lake.read_rows(SearchStep, scores), lake.read_rows(SearchStep, values)
    pairs = pairs_of(by_score, truth)
    ids = sorted(truth)
    replies = _replies(rows, pairs, model, policy, images, runtime)
    found = {
        "policy": policy_counts(pairs, [replies[pair] for pair in pairs], ids),
        "scorer": guide_counts(pairs, guides_of(by_score, guide_of), ids),
        "value": guide_counts(pairs, guides_of(by_value, guide_of), ids),
    }
    return StageOutput(refs={judge: _metrics(judge, ratios, config) for judge, ratios in found.items()})


def _metrics(judge: str, ratios: Mapping[str, Ratio], config: EvaluateConfig) -> ArtifactRef:
    rows = []
    for name, ratio in ratios.items():
        draws = bootstrap_draws(len(ratio.top), config.bootstrap, seed_for("bootstrap", len(ratio.top)))
        one = estimate(ratio, draws=draws, confidence=config.confidence)
        rows.append(Metric("base", judge, "judge", name, *one._replace(n=int(ratio.bottom.sum()))))
    return lake.publish(Metric, rows)


def _replies(
    rows: list[Sample],
    pairs: list[Pair],
    model: PolicyConfig,
    policy: ArtifactRef,
    images: ArtifactRef,
    runtime: RuntimeConfig,
) -> dict[Pair, tuple[str, str]]:
    """The policy's replies about every pair, in order and swapped."""
    from tasks.core.engine.fallback import open_decoder
    from tasks.core.engine.scheduler import Job, SearchScheduler

    of_sample: dict[str, list[Pair]] = {}
    for pair in pairs:
        of_sample.setdefault(pair.sample_id, []).append(pair)
    todo = [row for row in rows if row.sample_id in of_sample]
    pictures = Pictures(images, todo, runtime.batch_size)
    decoder = open_decoder(load_policy(model, policy, runtime), kv_token_budget=runtime.token_budget or None)
    scheduler = SearchScheduler(decoder, in_flight=runtime.batch_size, top_p=1.0)
    jobs = (
        Job(
            index,
            image=lambda sample=sample: pictures(sample),  # type: ignore[misc]
            prompt=sample.prompt,
            search=examine(sample.prompt, of_sample[sample.sample_id]),
            seed=("examine", sample.sample_id),
        )
        for index, sample in enumerate(todo)
    )
    replies: dict[Pair, tuple[str, str]] = {}
    with progress("cross_examine", len(pairs), unit="pairs") as advance:
        for index, result in scheduler.run(jobs):
            texts = [row.proposal.text for row in result.trace]
            for pair, in_order, swapped in zip(of_sample[todo[index].sample_id], texts[::2], texts[1::2], strict=True):
                replies[pair] = in_order, swapped
                advance(1)
    return replies
