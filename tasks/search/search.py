"""Stage 5, search: better captions than the policy's own, with every candidate that was looked at.

One stage for all strategies, greedy included, so that a baseline differs from the method in nothing but its choice.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from storage import lake
from storage.artifacts import ArtifactRef, StageOutput
from storage.schema import Caption, Sample, SearchStep
from tasks.configs.policy import PolicyConfig
from tasks.configs.search import SearchConfig
from tasks.core.search import registry
from tasks.models.loading import Pictures
from tasks.search.searcher import Guides, Searcher, needs_of, settings_of
from tasks.stage.progress import progress
from tasks.stage.runtime import RuntimeConfig
from tasks.stage.stage import WHOLE, Shard, check_nothing_lost, stage

if TYPE_CHECKING:
    from tasks.core.search.contract import SearchResult


@stage(sharded_by="samples")
def search(
    config: SearchConfig,
    model: PolicyConfig,
    policy: ArtifactRef,
    images: ArtifactRef,
    samples: ArtifactRef,
    *,
    seed: int,
    scorer: ArtifactRef | None = None,
    tau: float | None = None,
    value: ArtifactRef | None = None,
    backbone: ArtifactRef | None = None,
    values: ArtifactRef | None = None,
    answer_mean: float | None = None,
    answer_std: float | None = None,
    code: str = "",
    name: str = "",
    runtime: RuntimeConfig,
    shard: Shard = WHOLE,
    label: str = "",
) -> StageOutput:
    """Captions of the samples by one strategy. Outputs: captions, search_trace.

    `code`: digest of an installed strategy's code (`strategy_code`), so that another text of it searches anew. `name`: what
    the rows call the strategy, where it is not the only one of its kind. Counter `search_seconds`: wall seconds of the search
    itself, images read and guides asked; without loading models.
    """
    name = name or config.strategy
    todo = shard.slice(lake.read_rows(Sample, samples))
    answers = None if answer_mean is None or answer_std is None else (answer_mean, answer_std)
    guides = Guides(scorer, tau, value, backbone, values, answers)
    searcher = Searcher(config, model, policy, guides, seed=seed, runtime=runtime)
    results: dict[int, SearchResult] = {}
    began = time.perf_counter()
    with progress(f"search {name}", len(todo), unit="captions") as advance:
        for index, result in searcher.run(todo, Pictures(images, todo, runtime.batch_size)):
            results[index] = result
            advance(1)
    seconds = round(time.perf_counter() - began, 3)
    captions = [_caption(sample, policy.digest, name, results[i]) for i, sample in enumerate(todo) if i in results]
    trace = [row for i, sample in enumerate(todo) if i in results for row in _trace(sample, name, results[i], tau)]
    check_nothing_lost("search", len(todo), len(captions), 0, 0.0, unit="samples")
    return StageOutput(
        refs={"captions": lake.publish(Caption, captions), "search_trace": lake.publish(SearchStep, trace)},
        counters={**searcher.counters, "search_seconds": seconds},
    )


def strategy_code(name: str) -> str:
    """Digest of an installed strategy's code; empty for a built-in one, whose code is this stage's."""
    return registry.code_of(name)


def search_needs(config: SearchConfig) -> frozenset[str]:
    """What a search by these settings needs, before a run has measured anything."""
    return needs_of(config, settings_of(config, Guides()))


def _caption(sample: Sample, policy: str, strategy: str, result: SearchResult) -> Caption:
    return Caption(
        sample_id=sample.sample_id,
        image_id=sample.image_id,
        policy=policy,
        strategy=strategy,
        text=result.text,
        steps=len(result.sentences),
        stop_reason=result.stop_reason,
        candidates=len(result.trace),
        decode_tokens=sum(row.proposal.drawn for row in result.trace),
    )


def _trace(sample: Sample, strategy: str, result: SearchResult, tau: float | None) -> list[SearchStep]:
    """Rows of `search_trace`; `shaped` is the margin rule in its default form.

    Written out here: a change of the reward formulas then searches nothing anew but what its margin guides.
    """
    rows = []
    for row in result.trace:
        shaped = None
        if row.score is not None and tau is not None:
            shaped = row.score if row.score >= tau else row.score - tau
        rows.append(
            SearchStep(
                sample_id=sample.sample_id,
                strategy=strategy,
                step=row.step,
                candidate=row.candidate,
                temperature=row.proposal.temperature,
                text=row.proposal.text,
                score=row.score,
                shaped=shaped,
                value=row.value,
                chosen=row.chosen,
                ended=row.proposal.ended,
                stop=row.stop,
                phase=row.phase,
            )
        )
    return rows
