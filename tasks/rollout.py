"""Stage 2, rollout: the policy answers every prompt several times, greedy and at several temperatures."""

from __future__ import annotations

from collections import Counter

from storage import lake
from storage.artifacts import ArtifactRef, StageOutput
from storage.schema import Rollout, Sample
from tasks.caching import WHOLE, Shard, check_nothing_lost, stage
from tasks.configs import PolicyConfig, RolloutConfig, RuntimeConfig
from tasks.loading import load_images, load_policy
from tasks.progress import progress


def decode_names(config: RolloutConfig) -> list[tuple[str, float]]:
    """(name, temperature) of every answer; a temperature named twice gets a second name."""
    names = [("greedy", 0.0)] if config.greedy else []
    seen: Counter[float] = Counter()
    for temperature in config.temperatures:
        seen[temperature] += 1
        names.append((f"t{temperature:g}" + (f"-{seen[temperature]}" if seen[temperature] > 1 else ""), temperature))
    return names


@stage(sharded_by="samples")
def rollout(
    config: RolloutConfig,
    model: PolicyConfig,
    policy: ArtifactRef,
    images: ArtifactRef,
    samples: ArtifactRef,
    *,
    seed: int,
    runtime: RuntimeConfig,
    shard: Shard = WHOLE,
    label: str = "",
) -> StageOutput:
    """Answers of the policy. Output: rollouts, one row a sample and decode."""
    from tasks.core.engine.decoder import Decoder, Draw

    todo = shard.slice(lake.read_rows(Sample, samples))
    decodes = decode_names(config)
    decoder = Decoder(load_policy(model, policy, runtime))
    rows: list[Rollout] = []
    with progress("rollout", len(todo) * len(decodes), unit="answers") as advance:
        for start in range(0, len(todo), runtime.batch_size):
            batch = todo[start : start + runtime.batch_size]
            pictures = load_images(images, [one.image_id for one in batch])
            live = decoder.prefill([pictures[one.image_id] for one in batch], [one.prompt for one in batch])
            forked = decoder.fork(live, [row for row in range(len(batch)) for _ in decodes])
            asked = [(one, name, temperature) for one in batch for name, temperature in decodes]
            draws = [Draw(t, config.top_p, ("rollout", seed, one.sample_id, name)) for one, name, t in asked]
            said, _ = decoder.extend(forked, draws, max_new_tokens=config.max_new_tokens, sentence=False)
            for (one, name, temperature), answer in zip(asked, said, strict=True):
                rows.append(
                    Rollout(
                        rollout_id=f"{one.sample_id}-{name}",
                        sample_id=one.sample_id,
                        policy=policy.digest,
                        decode=name,
                        temperature=temperature,
                        top_p=config.top_p,
                        seed=seed,
                        text=answer.text,
                        n_tokens=answer.drawn,
                        finish_reason="stop" if answer.ended else "length",
                    )
                )
            advance(len(asked))
    check_nothing_lost("rollout", len(todo) * len(decodes), len(rows), 0, 0.0, unit="answers")
    return StageOutput(refs={"rollouts": lake.publish(Rollout, rows)}, counters=dict(decoder.counters))
