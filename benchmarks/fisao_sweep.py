"""What FiSAO's constants do: one of them changed at a time around the demo-fisao profile, since the paper's could not be read.

    python -m benchmarks.fisao_sweep            writes benchmarks/results/fisao_sweep.json and .md

Every arm starts from the shipped demo policy, learns from the same rollouts of one round, and is measured by its greedy
captions of held-out scenes. Without Prefect, through the stages of the loop. About ten minutes on one core.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from benchmarks.measured import SCALES, Figures, changes_of, metrics_of, on_scenes, options_parser, write_results
from flows.experiments.bench import first_round
from flows.round.guide import RoundGuide
from flows.round.measure import Model, measure
from flows.round.prepare import CaptionContext, prepare_loop
from flows.round.train import train_policy
from tasks.configs.train import FisaoConfig, FisaoSettings, switch_method
from tasks.data.sample import SampleResult, annotate
from tasks.reward.tokens import score_tokens, split_token_baselines, token_baselines
from tasks.stage.results import named_fields
from tasks.stage.runtime import use_runtime

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
    "first answers: the rollouts": {"first": "rollouts"},
    "rewards of sentences": {"rewards": "sentences"},
}
FACTS = ("reward_first", "reward_last", "kl", "clip_share", "relative_change")


def baselines_of(
    context: CaptionContext, settings: FisaoSettings, drawn: SampleResult, guide: RoundGuide
) -> dict[str, Any]:
    """The baselines of right and hallucinated words that training took, and how many words they come from."""
    answers = (drawn.images, drawn.samples, guide.rollouts)
    words = score_tokens.over_shards(context.scorer, *answers, per=settings.rewards).token_scores
    if settings.baselines == "split":
        rewarded = split_token_baselines(settings, words)
    else:
        truth = annotate.with_label("train")(context.source, drawn.images).annotations
        rewarded = token_baselines(settings, words, drawn.samples, guide.rollouts, truth)
    facts = {name: value for name, value in named_fields(rewarded).items() if isinstance(value, int | float)}
    return rewarded.baselines._asdict() | facts


def run_arm(context: CaptionContext, base: Model, drawn: SampleResult, guide: RoundGuide, name: str) -> dict[str, Any]:
    """A policy trained with an arm's constants: its metrics, their differences from the base's, figures of the training."""
    began = time.perf_counter()
    profile = context.profile
    config = switch_method(profile.finetune, FisaoConfig)
    settings = config.fisao.model_copy(update=ARMS[name])
    config = config.model_copy(update={"fisao": settings})
    context = replace(context, profile=profile.model_copy(update={"finetune": config}))
    trained = train_policy(context, guide, drawn)
    scores = measure(context, name, context.handle(trained.policy)).scores
    return {
        "arm": name,
        "changed": ARMS[name],
        "metrics": metrics_of(scores),
        "against_base": changes_of(profile, scores, base.scores),
        "facts": {fact: trained.figures[fact] for fact in FACTS},
        "baselines": baselines_of(context, settings, drawn, guide),
        "seconds": round(time.perf_counter() - began, 1),
    }


def table(base: Figures, rows: Sequence[dict[str, Any]], seed: int, scenes: int) -> str:
    """The Markdown table."""
    lines = [
        "| | CHAIRs % | CHAIRi % | Recall % | words | KL | mean reward of a word, first and last answers |",
        "|---|---|---|---|---|---|---|",
        f"| base | {_columns(base)} | | |",
    ]
    for row in rows:
        facts = row["facts"]
        rewards = f"{facts['reward_first']:.2f}, {facts['reward_last']:.2f}"
        lines.append(f"| {row['arm']} | {_columns(row['metrics'])} | {facts['kl']:.3f} | {rewards} |")
    chair, recall = (
        max((row["metrics"][metric][2] - row["metrics"][metric][1]) / 2 for row in rows)
        for metric in ("chair_i", "recall")
    )
    lines += [
        "",
        f"Seed {seed}, {scenes} held-out scenes, one round. 95 % intervals are up to ±{100 * chair:.1f} (CHAIRi) and "
        f"±{100 * recall:.1f} points (Recall) wide. KL: half the mean squared log ratio to the base in the last pass, a token.",
    ]
    return "\n".join(lines) + "\n"


def _columns(metrics: Figures) -> str:
    return " | ".join(f"{scale * metrics[name][0]:.1f}" for name, scale in SCALES.items())


def main() -> None:
    """Run, print and write."""
    parser = options_parser(__doc__, "fisao_sweep", scenes=300, seeds=())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    options = parser.parse_args()
    seed, scenes = options.seed, options.scenes
    profile = on_scenes("demo-fisao", seed, scenes, options.overrides)
    with use_runtime(profile.runtime):
        context = prepare_loop(profile)
        base = measure(context, "base", context.base)
        drawn, guide = first_round(context, frozenset())
        results: dict[str, Any] = {"seed": seed, "scenes": scenes, "base": metrics_of(base.scores), "arms": []}
        for name in options.arms:
            results["arms"].append(run_arm(context, base, drawn, guide, name))
            print(f"{name}: {results['arms'][-1]['seconds']} s", flush=True)
            page = table(results["base"], results["arms"], seed, scenes)
            write_results(options.out, results, page)
    print(page)


if __name__ == "__main__":
    main()
