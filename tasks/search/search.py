"""Stage 5, search: better captions than the policy's own, with every candidate that was looked at.

One stage for all strategies, greedy included, so that a baseline differs from the method in nothing but its choice.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from storage import lake
from storage.artifacts import Table
from storage.schema import Caption, Image, Sample, SearchStep
from tasks.configs.search import SearchConfig, search_name
from tasks.core.search import registry
from tasks.models.handles import UNGUIDED, Guide, PolicyHandle
from tasks.models.loading import Pictures
from tasks.search.searcher import Searcher, needs_of, settings_of
from tasks.stage.progress import progress
from tasks.stage.quarantine import check_nothing_lost
from tasks.stage.results import StageResult
from tasks.stage.shards import WHOLE, Shard
from tasks.stage.stage import stage

if TYPE_CHECKING:
    from tasks.core.search.contract import SearchResult


@dataclass(frozen=True)
class CaptionsResult(StageResult):
    """Captions and every candidate that was looked at.

    Counter `search_seconds`: wall seconds of the search itself, with reading images and scoring, without loading models.
    """

    captions: Table[Caption]
    search_trace: Table[SearchStep]


def strategy_code(config: SearchConfig, **_: object) -> dict[str, str]:
    """Digest of an installed strategy's code, so that a change of it runs the search again; nothing for a built-in one."""
    code = registry.code_of(config.strategy)
    return {f"strategy {config.strategy}": code} if code else {}


@stage(sharded_by="samples", plug_in_code=strategy_code)
def search(
    config: SearchConfig,
    policy: PolicyHandle,
    images: Table[Image],
    samples: Table[Sample],
    guide: Guide = UNGUIDED,
    *,
    seed: int,
    name: str = "",
    shard: Shard = WHOLE,
) -> CaptionsResult:
    """Captions of the samples by one strategy.

    `name`: what the rows call the strategy, where it is not the only one of its kind.
    """
    name = name or search_name(config)
    todo = shard.slice(lake.read_rows(Sample, samples))
    searcher = Searcher(config, policy, guide, seed=seed)
    results: dict[int, SearchResult] = {}
    began = time.perf_counter()
    with progress(f"search {name}", len(todo), unit="captions") as advance:
        for index, result in searcher.run(todo, Pictures(images, todo)):
            results[index] = result
            advance(1)
    seconds = round(time.perf_counter() - began, 3)
    done = [(sample, results[index]) for index, sample in enumerate(todo) if index in results]
    captions = [_caption(sample, policy.checkpoint.digest, name, result) for sample, result in done]
    trace = [row for sample, result in done for row in _trace(sample, name, result, guide.margin)]
    check_nothing_lost("search", len(todo), len(captions), 0, 0.0, unit="samples")
    return CaptionsResult(
        captions=lake.publish(Caption, captions),
        search_trace=lake.publish(SearchStep, trace),
        counters={**searcher.counters, "search_seconds": seconds},
    )


def search_needs(config: SearchConfig) -> frozenset[str]:
    """What a search by these settings needs, before a run has measured anything."""
    return needs_of(config, settings_of(config, UNGUIDED))


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


def _trace(sample: Sample, strategy: str, result: SearchResult, margin: float | None) -> list[SearchStep]:
    """Rows of `search_trace`; `shaped` is the margin rule in its default form.

    Written out here: a change of the reward formulas then repeats only searches that the margin guides.
    """
    rows = []
    for row in result.trace:
        shaped = None
        if row.score is not None and margin is not None:
            shaped = row.score if row.score >= margin else row.score - margin
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
