"""What FiSAO's constants do: one of them changed at a time around the demo-fisao profile, since the paper prints none.

    python -m benchmarks.fisao_sweep            writes benchmarks/results/fisao_sweep.json and .md

Every arm starts from the shipped demo policy, learns from the same rollouts of one round, and is measured by its greedy
captions of held-out scenes. Without Prefect, through the stages of the loop. About ten minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

from tasks.core.benchmarks.chair import METRICS

RESULTS = Path(__file__).parent / "results"
ARMS: dict[str, dict[str, Any]] = {
    "as the profile": {},
    "KL 0": {"kl": 0.0},
    "KL 0.2": {"kl": 0.2},
    "margin 0.03": {"margin": 0.03},
    "clip 0.1": {"clip": 0.1},
    "critic's weight 0.1": {"value_weight": 0.1},
    "1 pass": {"passes": 1},
    "1 iteration": {"iterations": 1},
    "1 pass, 4 iterations": {"passes": 1, "iterations": 4},
    "baselines without annotations": {"baselines": "split"},
}
FACTS = ("reward_first", "reward_last", "kl", "clip_share", "relative_change")


class Base(NamedTuple):
    """What all arms start from."""

    profile: Any
    ground: Any
    policy: Any
    scores: Any  # of its greedy captions
    images: Any
    samples: Any
    rollouts: Any
    words: Any  # their object words, scored
    truth: Any  # annotations of the images


def lay_base(seed: int, scenes: int) -> Base:
    """The base's captions and one round's rollouts with their words' scores."""
    from flows.profiles.loading import load_profile
    from flows.round.guide import lay_ground
    from flows.round.improvement import measure
    from tasks.data.sample import Draw, annotate, sample
    from tasks.reward.tokens import score_tokens
    from tasks.rollout.rollout import rollout

    profile = load_profile("demo-fisao", [f"seed={seed}", f"evaluate.images={scenes}"])
    run: dict[str, Any] = {"runtime": profile.runtime}
    ground, policy = lay_ground(profile)
    scores = measure(profile, ground, "base", policy).scores
    drawn = sample(profile.sample, ground.train, Draw(images=profile.sample.images, seed=seed, round_index=0), **run)
    images, samples = drawn["images"], drawn["samples"]
    shards = profile.runtime.shards
    said = rollout.over_shards(shards, profile.rollout, profile.policy, policy, images, samples, seed=seed, **run)
    words = score_tokens.over_shards(shards, ground.scorer, images, samples, said["rollouts"], **run)
    truth = annotate(ground.train, images, **run)
    return Base(
        profile, ground, policy, scores, images, samples, said["rollouts"], words["token_scores"], truth["annotations"]
    )


def run_arm(base: Base, name: str, changed: dict[str, Any]) -> dict[str, Any]:
    """One policy tuned with these constants: its metrics, their differences from the base's, what the training told."""
    from benchmarks.measured import changes_of, metrics_of
    from flows.round.improvement import measure
    from tasks.reward.tokens import split_token_baselines, token_baselines
    from tasks.train.fisao import tune_fisao

    began = time.perf_counter()
    profile = base.profile
    fisao = profile.finetune.fisao.model_copy(update=changed)
    run: dict[str, Any] = {"runtime": profile.runtime}
    if fisao.baselines == "split":
        found = split_token_baselines(fisao, base.words, **run)
    else:
        found = token_baselines(fisao, base.words, base.samples, base.rollouts, base.truth, **run)
    tuned = tune_fisao(
        profile.finetune.model_copy(update={"fisao": fisao}),
        profile.policy,
        base.policy,
        base.images,
        base.samples,
        base.rollouts,
        found["token_scores"],
        base.ground.scorer,
        **{name: found.facts[name] for name in ("mu_right", "mu_hallucinated", "deviation")},
        seed=profile.seed,
        **run,
    )
    scores = measure(profile, base.ground, name, tuned["policy"]).scores
    return {
        "arm": name,
        "changed": changed,
        "metrics": metrics_of(scores),
        "against_base": changes_of(profile, scores, base.scores),
        "facts": {name: tuned.facts[name] for name in FACTS},
        "baselines": dict(found.facts),
        "seconds": round(time.perf_counter() - began, 1),
    }


def table(base: dict[str, list[float]], rows: list[dict[str, Any]], seed: int, scenes: int) -> str:
    """The Markdown table."""
    lines = [
        "| | CHAIRs % | CHAIRi % | Recall % | words | KL | mean reward of a word, first and last answers |",
        "|---|---|---|---|---|---|---|",
    ]

    def cells(metrics: dict[str, list[float]]) -> str:
        return " | ".join(f"{(1 if name == 'length' else 100) * metrics[name][0]:.1f}" for name in METRICS)

    lines.append(f"| base | {cells(base)} | | |")
    for row in rows:
        facts = row["facts"]
        rewards = f"{facts['reward_first']:.2f}, {facts['reward_last']:.2f}"
        lines.append(f"| {row['arm']} | {cells(row['metrics'])} | {facts['kl']:.3f} | {rewards} |")
    width = max((row["metrics"]["recall"][2] - row["metrics"]["recall"][1]) / 2 for row in rows)
    chair = max((row["metrics"]["chair_i"][2] - row["metrics"]["chair_i"][1]) / 2 for row in rows)
    lines += [
        "",
        f"Seed {seed}, {scenes} held-out scenes, one round. 95 % intervals are up to ±{100 * chair:.1f} (CHAIRi) and "
        f"±{100 * width:.1f} points (Recall) wide. KL: half the mean squared log ratio to the base in the last pass, a token.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--out", type=Path, default=RESULTS / "fisao_sweep.json")
    options = parser.parse_args()
    os.environ.setdefault("VISLOOP_HOME", "artifacts")
    from benchmarks.measured import metrics_of

    base = lay_base(options.seed, options.scenes)
    first = metrics_of(base.scores)
    rows: list[dict[str, Any]] = []
    for name in options.arms:
        rows.append(run_arm(base, name, ARMS[name]))
        print(f"{name}: {rows[-1]['seconds']} s", flush=True)
        kept = {"seed": options.seed, "scenes": options.scenes, "base": first, "arms": rows}
        options.out.write_text(json.dumps(kept, indent=1) + "\n")
        options.out.with_suffix(".md").write_text(table(first, rows, options.seed, options.scenes))
    print(options.out.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
