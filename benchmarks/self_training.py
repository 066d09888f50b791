"""Does the loop work? The demo profile on held-out scenes, three seeds, with its baselines and a control.

    python -m benchmarks.self_training            writes benchmarks/results/self_training.json and .md

For every seed: the base model's greedy captions; best-of-n, CLIP-PRM and the profile's guided search on it, untrained; the
greedy captions of round 1 and round 2; and a control, the base fine-tuned in the same way on its own greedy captions.
Everything goes through the stages of the loop, without Prefect. Seeds draw images, answers, training order and the
benchmark's scenes. About ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

from tasks.core.benchmarks.chair import METRICS

RESULTS = Path(__file__).parent / "results"
NAMES = {
    ("base", "greedy"): "base, greedy",
    ("base", "best_of_n"): "base + best of n",
    ("base", "clip_prm"): "base + CLIP-PRM search",
    ("base", "visvm"): "base + guided search (VisVM)",
    ("control", "greedy"): "control: tuned on its own greedy captions",
    ("round-1", "greedy"): "round 1, greedy",
    ("round-2", "greedy"): "round 2, greedy",
}


def run_seed(seed: int, scenes: int, overrides: list[str]) -> dict[str, Any]:
    """One whole run with baselines and control; metrics, paired differences with the base, decisions, seconds."""
    from benchmarks.measured import changes_of, metrics_of
    from flows.profiles.loading import load_profile
    from flows.round.guide import search_captions
    from flows.round.improvement import improvement_round, measure, scores_of
    from flows.self_training import prepare
    from tasks.configs.train import SftConfig, switch_method
    from tasks.data.sample import Draw, sample
    from tasks.search.search import search
    from tasks.train.finetune import finetune

    began = time.perf_counter()
    profile = load_profile("demo", [f"seed={seed}", f"evaluate.images={scenes}", *overrides])
    run: dict[str, Any] = {"runtime": profile.runtime}
    ground, base = prepare(profile)
    first = improvement_round(profile, ground, base, base, 1)
    champion = first.candidate if first.decision.facts["promoted"] else base
    second = improvement_round(profile, ground, champion, base, 2)
    measured = {("base", "greedy"): base.scores}
    for strategy in ("best_of_n", "clip_prm", "visvm"):
        config = profile.search.model_copy(update={"strategy": strategy})
        found = search_captions(
            profile, ground, base.policy, first.guide, config, ground.bench["images"], ground.bench["samples"]
        )
        measured["base", strategy] = scores_of(profile, ground, found, "base", strategy)
    draw = Draw(images=profile.sample.images, seed=seed, round_index=0)
    drawn = sample(profile.sample, ground.train, draw, **run)
    greedy = profile.search.model_copy(update={"strategy": "greedy"})
    own = search.over_shards(
        profile.runtime.shards, greedy, profile.policy, base.policy, drawn["images"], drawn["samples"], seed=seed, **run
    )
    tuned = finetune(
        switch_method(profile.finetune, SftConfig),
        profile.policy,
        base.policy,
        drawn["images"],
        drawn["samples"],
        own["captions"],
        seed=seed,
        **run,
    )
    measured["control", "greedy"] = measure(profile, ground, "control", tuned["policy"]).scores
    measured["round-1", "greedy"] = first.candidate.scores
    measured["round-2", "greedy"] = second.candidate.scores
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
        "decisions": [first.decision.facts["reason"], second.decision.facts["reason"]],
        "spearman": first.guide.value.facts["spearman"] if first.guide.value is not None else None,
        "seconds": round(time.perf_counter() - began, 1),
    }


def summary(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per subject and decoding: mean over seeds with the seeds' range, and the change against the base."""
    rows = []
    for index, first in enumerate(runs[0]["rows"]):
        same = [run["rows"][index] for run in runs]
        row: dict[str, Any] = {"name": NAMES[first["subject"], first["decoding"]]}
        row["subject"], row["decoding"] = first["subject"], first["decoding"]
        for metric in METRICS:
            values = [one["metrics"][metric][0] for one in same]
            changes = [one["against_base"][metric] for one in same]
            row[metric] = {
                "mean": statistics.mean(values),
                "lowest": min(values),
                "highest": max(values),
                "change": statistics.mean(change[0] for change in changes),
                # Every seed's paired interval lies on one side of zero.
                "surely": all(change[2] < 0 for change in changes) or all(change[1] > 0 for change in changes),
            }
        rows.append(row)
    return rows


def table(rows: list[dict[str, Any]], scenes: int, seeds: list[int]) -> str:
    """The Markdown table."""
    base = rows[0]
    lines = ["| | CHAIRs % | CHAIRi % | Recall % | words | CHAIRi against base |", "|---|---|---|---|---|---|"]
    for row in rows:
        cells = []
        for metric in METRICS:
            factor, one = (1 if metric == "length" else 100), row[metric]
            cells.append(f"{factor * one['mean']:.1f} ({factor * one['lowest']:.1f} to {factor * one['highest']:.1f})")
        ratio = row["chair_i"]["mean"] / base["chair_i"]["mean"] - 1
        change = "" if row is base else f"{100 * ratio:+.0f} %" + ("" if row["chair_i"]["surely"] else ", not sure")
        lines.append(f"| {row['name']} | " + " | ".join(cells) + f" | {change} |")
    seeded = ", ".join(map(str, seeds))
    lines.append("")
    lines.append(
        f"Means over seeds {seeded} (in brackets: lowest and highest seed), {scenes} held-out scenes each. "
        "“Not sure”: the paired 95 % interval of at least one seed includes zero."
    )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--scenes", type=int, default=500)
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--out", type=Path, default=RESULTS / "self_training.json")
    options = parser.parse_args()
    os.environ.setdefault("VISLOOP_HOME", "artifacts")
    runs = []
    for seed in options.seeds:
        runs.append(run_seed(seed, options.scenes, options.overrides))
        print(f"seed {seed}: {runs[-1]['seconds']} s, {runs[-1]['decisions']}", flush=True)
    rows = summary(runs)
    text = table(rows, options.scenes, options.seeds)
    print(text)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    kept = {
        "scenes": options.scenes,
        "seeds": options.seeds,
        "overrides": options.overrides,
        "summary": rows,
        "runs": runs,
    }
    options.out.write_text(json.dumps(kept, indent=1) + "\n")
    options.out.with_suffix(".md").write_text(text)


if __name__ == "__main__":
    main()
