"""Does the loop work? The demo profile on held-out scenes, three seeds, with its baselines and a control.

    python -m benchmarks.self_training            writes benchmarks/results/self_training.json and .md

For every seed: the base model's greedy captions; best-of-n, CLIP-PRM and the profile's guided search on it, untrained, with
random numbers and a V of gamma 0 in place of V, and greedy sentences with the same end; the greedy captions of round 1 and
round 2; and a control, the base fine-tuned in the same way on its own greedy captions.
Everything goes through the stages of the loop, without Prefect. Seeds draw images, answers, training order and the
benchmark's scenes. About ten minutes on two cores.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from benchmarks.measured import SCALES, changes_of, metrics_of, on_scenes, options_parser, spread, write_results
from flows.experiments.bench import Bench, arm, first_round, with_discount
from flows.experiments.controls import split_gamma
from flows.experiments.self_train import trained_as
from flows.experiments.trained import supervised
from flows.round.improvement import improvement_round, prepare
from tasks.configs.search import search_config
from tasks.core.benchmarks.chair import METRICS
from tasks.search.search import search_needs
from tasks.stage.runtime import use_runtime

SEARCHES = ("best_of_n", "clip_prm", "visvm", "visvm:guide=random", "visvm:gamma=0", "visvm:choose=greedy")
NAMES = {
    ("base", "greedy"): "base, greedy",
    ("base", "best_of_n"): "base + best of n",
    ("base", "clip_prm"): "base + CLIP-PRM search",
    ("base", "visvm"): "base + guided search (VisVM)",
    ("base", "visvm:guide=random"): "base + random V",
    ("base", "visvm:gamma=0"): "base + V, gamma 0",
    ("base", "visvm:choose=greedy"): "base + greedy with the same end",
    ("control", "greedy"): "control: trained on its own greedy captions",
    ("round-1", "greedy"): "round 1, greedy",
    ("round-2", "greedy"): "round 2, greedy",
}


def run_seed(seed: int, scenes: int, overrides: Sequence[str]) -> dict[str, Any]:
    """One whole run with baselines and control; metrics, paired differences with the base, decisions, seconds."""
    began = time.perf_counter()
    # Its own searches below include the controls.
    profile = on_scenes("demo", seed, scenes, [*overrides, "evaluate.decodings=[greedy,search]"])
    with use_runtime(profile.runtime):
        context, base = prepare(profile)
        first = improvement_round(context, base, base, 1)
        champion = first.candidate if first.decision.promoted else base
        second = improvement_round(context, champion, base, 2)

        searches = {spec: split_gamma(spec) for spec in SEARCHES}
        configs = {spec: search_config(profile.search, plain) for spec, (plain, _) in searches.items()}
        drawn, guide = first_round(context, frozenset().union(*map(search_needs, configs.values())))
        bench = Bench(context, drawn, guide)
        own = supervised(profile).model_copy(update={"search": search_config(profile.search, "greedy")})
        control = trained_as(replace(context, profile=own), "control", guide, drawn)

        measured = {
            ("base", "greedy"): base.scores,
            **{
                ("base", spec): arm(with_discount(bench, gamma), spec, config=configs[spec]).scores
                for spec, (_, gamma) in searches.items()
            },
            ("control", "greedy"): control.scores,
            ("round-1", "greedy"): first.candidate.scores,
            ("round-2", "greedy"): second.candidate.scores,
        }
        rows = [
            {
                "subject": subject,
                "decoding": decoding,
                "metrics": metrics_of(scores),
                "against_base": changes_of(profile, scores, base.scores),
            }
            for (subject, decoding), scores in measured.items()
        ]
    return {
        "seed": seed,
        "rows": rows,
        "decisions": [first.decision.reason, second.decision.reason],
        "spearman": bench.value.spearman,
        "rank_within": bench.value.health.get("rank_within"),
        "seconds": round(time.perf_counter() - began, 1),
    }


def summary(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per subject and decoding: mean over seeds with the seeds' range, and the change against the base."""
    rows = []
    for index, first in enumerate(runs[0]["rows"]):
        same = [run["rows"][index] for run in runs]
        row: dict[str, Any] = {"name": NAMES[first["subject"], first["decoding"]]}
        row["subject"], row["decoding"] = first["subject"], first["decoding"]
        for metric in METRICS:
            changes = [result["against_base"][metric] for result in same]
            row[metric] = {
                **spread([result["metrics"][metric][0] for result in same]),
                "change": statistics.mean(change[0] for change in changes),
                # Every seed's paired interval lies on one side of zero.
                "surely": all(change[2] < 0 for change in changes) or all(change[1] > 0 for change in changes),
            }
        rows.append(row)
    return rows


def table(rows: Sequence[dict[str, Any]], scenes: int, seeds: Sequence[int]) -> str:
    """The Markdown table."""
    base = rows[0]
    lines = ["| | CHAIRs % | CHAIRi % | Recall % | words | CHAIRi against base |", "|---|---|---|---|---|---|"]
    for row in rows:
        columns = []
        for metric, scale in SCALES.items():
            mean, low, high = (scale * row[metric][key] for key in ("mean", "lowest", "highest"))
            columns.append(f"{mean:.1f} ({low:.1f} to {high:.1f})")
        ratio = row["chair_i"]["mean"] / base["chair_i"]["mean"] - 1
        change = "" if row is base else f"{100 * ratio:+.0f} %" + ("" if row["chair_i"]["surely"] else ", not sure")
        lines.append(f"| {row['name']} | " + " | ".join(columns) + f" | {change} |")
    seeded = ", ".join(map(str, seeds))
    lines += [
        "",
        f"Means over seeds {seeded} (in brackets: lowest and highest seed), {scenes} held-out scenes each. "
        "“Not sure”: the paired 95 % interval of at least one seed includes zero.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run, print and write."""
    options = options_parser(__doc__, "self_training", scenes=500).parse_args()
    runs = []
    for seed in options.seeds:
        runs.append(run_seed(seed, options.scenes, options.overrides))
        print(f"seed {seed}: {runs[-1]['seconds']} s, {runs[-1]['decisions']}", flush=True)
    rows = summary(runs)
    text = table(rows, options.scenes, options.seeds)
    print(text)
    results = {key: getattr(options, key) for key in ("scenes", "seeds", "overrides")}
    write_results(options.out, {**results, "summary": rows, "runs": runs}, text)


if __name__ == "__main__":
    main()
