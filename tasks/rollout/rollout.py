"""Stage 2, rollout: the policy answers every prompt several times, greedy and at several temperatures."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from storage import lake
from storage.artifacts import Table
from storage.schema import Image, Rollout, Sample
from tasks.configs.rollout import RolloutConfig
from tasks.core.search.contract import TraceRow
from tasks.models.engine import jobs_of, open_engine, whole_answers
from tasks.models.handles import PolicyHandle
from tasks.models.loading import Pictures, load_policy
from tasks.stage.progress import progress
from tasks.stage.quarantine import check_nothing_lost
from tasks.stage.results import StageResult
from tasks.stage.shards import WHOLE, Shard
from tasks.stage.stage import stage


def decode_names(config: RolloutConfig) -> list[tuple[str, float]]:
    """(name, temperature) of every answer; a temperature named twice gets a second name."""
    names = [("greedy", 0.0)] if config.greedy else []
    seen: Counter[float] = Counter()
    for temperature in config.temperatures:
        seen[temperature] += 1
        names.append((f"t{temperature:g}" + (f"-{seen[temperature]}" if seen[temperature] > 1 else ""), temperature))
    return names


@dataclass(frozen=True)
class RolloutResult(StageResult):
    """Answers: one row a sample and decode."""

    rollouts: Table[Rollout]


@stage(sharded_by="samples")
def rollout(
    config: RolloutConfig,
    policy: PolicyHandle,
    images: Table[Image],
    samples: Table[Sample],
    *,
    seed: int,
    shard: Shard = WHOLE,
) -> RolloutResult:
    """Answers of the policy."""
    todo = shard.slice(lake.read_rows(Sample, samples))
    decodes = decode_names(config)
    engine = open_engine(load_policy(policy), top_p=config.top_p)
    temperatures = [temperature for _, temperature in decodes]
    jobs = jobs_of(
        todo,
        Pictures(images, todo),
        lambda _: whole_answers(temperatures, config.max_new_tokens),
        seed=("rollout", seed),
        draws=lambda _: [(name,) for name, _ in decodes],
    )
    answers: dict[int, list[TraceRow]] = {}
    with progress("rollout", len(todo) * len(decodes), unit="answers") as advance:
        for index, result in engine.run(jobs):
            answers[index] = result.trace
            advance(len(decodes))
    rows = [
        Rollout(
            rollout_id=f"{sample.sample_id}-{name}",
            sample_id=sample.sample_id,
            policy=policy.checkpoint.digest,
            decode=name,
            temperature=temperature,
            top_p=config.top_p,
            seed=seed,
            text=answer.proposal.text,
            n_tokens=answer.proposal.drawn,
            finish_reason="stop" if answer.proposal.ended else "length",
        )
        for index, sample in enumerate(todo)
        for (name, temperature), answer in zip(decodes, answers[index], strict=True)
    ]
    check_nothing_lost("rollout", len(todo) * len(decodes), len(rows), 0, 0.0, unit="answers")
    return RolloutResult(lake.publish(Rollout, rows), counters=dict(engine.decoder.counters))
