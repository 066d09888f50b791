"""Every method from the same base: does it improve its own metric, does it keep improving, does it collapse?

    python -m benchmarks.methods            writes benchmarks/results/methods.json, .md and docs/methods.svg

For every method's demo profile and every seed: the whole loop for three rounds on held-out scenes, whatever the gate says of
a round (it starts the next one from its champion). Each round's model is paired with the base on the same items. Methods that
caption start from the same base policy, images and rollouts; staged answers from the demo's second policy.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
FIGURE = Path(__file__).parents[1] / "docs" / "methods.svg"
METHODS = {
    "demo": "VisVM",
    "demo-vimar": "ViMaR",
    "demo-fisao": "FiSAO",
    "demo-dpo": "DPO",
    "demo-grpo": "GRPO",
    "demo-cot": "LLaVA-CoT",
}
OWN = {"captions": ("chair", "chair_i", -1), "answers": ("vqa", "accuracy", 1)}  # benchmark, metric, better direction


def run_method(name: str, seed: int, scenes: int, rounds: int, overrides: Sequence[str]) -> dict[str, Any]:
    """One whole run: its greedy metrics by round, the paired differences from the base, the gate's decisions, seconds."""
    from flows.profiles.loading import load_profile
    from flows.recording import recorded_run
    from flows.self_training import improve
    from storage import runs

    given = [f"seed={seed}", f"evaluate.images={scenes}", f"rounds={rounds}", f"patience={rounds}", *overrides]
    profile, began = load_profile(name, given), time.perf_counter()
    with recorded_run(profile.name, profile) as run_id:
        ended = improve(profile, run_id)
    runs.finish_run(run_id, "completed", rounds=ended.rounds, champion=ended.champion, message=ended.message)
    seconds = round(time.perf_counter() - began, 1)
    return {"method": name, "seed": seed, "task": profile.task, "seconds": seconds, **told(run_id)}


def told(run_id: str) -> dict[str, Any]:
    """What the store says of a run: metrics of every decoding, differences from the base's greedy captions, decisions."""
    from storage import catalog

    connection = catalog.connect()
    mine = f"run_id = '{run_id}' and benchmark in ('chair', 'vqa', 'drift')"
    _, metrics = catalog.query(
        f"select distinct subject, decoding, benchmark, metric, value, ci_low, ci_high from metrics where {mine}",
        connection,
    )
    _, paired = catalog.query(
        "select distinct subject_a, decoding_a, metric, diff, ci_low, ci_high from comparisons "
        f"where {mine} and subject_b = 'base' and decoding_b in ('greedy', 'plain')",
        connection,
    )
    _, decided = catalog.query(
        f"select distinct candidate, promoted, reason from decisions where run_id = '{run_id}' order by 1", connection
    )
    return {
        "metrics": sorted(map(list, metrics)),
        "against_base": sorted(map(list, paired)),
        "decisions": [list(row) for row in decided],
    }


def summary(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each method and subject: means over seeds, and whether every seed's paired interval agrees."""
    rows = []
    for name in METHODS:
        same = [run for run in runs if run["method"] == name]
        if not same:
            continue
        subjects = dict.fromkeys((m[0], m[1]) for run in same for m in run["metrics"] if m[2] != "drift")
        for subject, decoding in sorted(subjects, key=lambda one: (one[0] != "base", one)):
            rows.append(_row(name, subject, decoding, same))
    return rows


def _row(name: str, subject: str, decoding: str, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    benchmark, own, better = OWN[runs[0]["task"]]
    values = [
        {m[3]: m[4] for m in run["metrics"] if m[:2] == [subject, decoding] and m[2] == benchmark} for run in runs
    ]
    there = [one for one in values if one]
    changes = [c[3:] for run in runs for c in run["against_base"] if c[:2] == [subject, decoding] and c[2] == own]
    promoted = [bool(d[1]) for run in runs for d in run["decisions"] if d[0] == subject]
    drift = [
        m[4] for run in runs for m in run["metrics"] if m[0] == subject and m[2] == "drift" and m[3] == "ngram_drift"
    ]
    return {
        "method": name,
        "subject": subject,
        "decoding": decoding,
        "own": own,
        "seeds": len(there),
        "metrics": {
            metric: [statistics.mean(v), min(v), max(v)]
            for metric in sorted(there[0])
            if len(v := [one[metric] for one in there if metric in one]) == len(there)
        },
        "change": statistics.mean(c[0] for c in changes) if changes else None,
        # Every seed's paired interval lies on the better side of zero.
        "surely": bool(changes) and all((c[2] < 0) if better < 0 else (c[1] > 0) for c in changes),
        "surely_worse": bool(changes) and all((c[1] > 0) if better < 0 else (c[2] < 0) for c in changes),
        "promoted": sum(promoted),
        "ngram_drift": statistics.mean(drift) if drift else None,
    }


def table(rows: Sequence[Mapping[str, Any]], kept: Mapping[str, Any]) -> str:
    """The Markdown table."""
    lines = [
        "| method | | own metric % | against its base | Recall % | words | drift | promoted |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        mean, low, high = (100 * one for one in row["metrics"][row["own"]])
        change = ""
        if row["change"] is not None:
            sure = "surely better" if row["surely"] else "surely worse" if row["surely_worse"] else "not sure"
            change = f"{100 * row['change']:+.1f} points, {sure}"
        recall = f"{100 * row['metrics']['recall'][0]:.1f}" if "recall" in row["metrics"] else ""
        words = f"{row['metrics']['length'][0]:.1f}" if "length" in row["metrics"] else ""
        drift = "" if row["ngram_drift"] is None else f"{row['ngram_drift']:.2f}"
        promoted = f"{row['promoted']} of {row['seeds']}" if row["subject"] != "base" else ""
        lines.append(
            f"| {METHODS[row['method']]} | {row['subject']}, {row['decoding']} | {mean:.1f} ({low:.1f} to {high:.1f}) | "
            f"{change} | {recall} | {words} | {drift} | {promoted} |"
        )
    seconds = {name: [run["seconds"] for run in kept["runs"] if run["method"] == name] for name in METHODS}
    took = ", ".join(f"{METHODS[name]} {statistics.mean(one):.0f} s" for name, one in seconds.items() if one)
    lines += [
        "",
        "Own metric: CHAIRi (lower is better), for LLaVA-CoT the accuracy of short answers (higher is better). Means over "
        f"seeds {', '.join(map(str, kept['seeds']))} (in brackets: lowest and highest), {kept['scenes']} held-out scenes each. "
        "“Surely”: the paired 95 % interval of every seed excludes zero. Drift: Jensen-Shannon divergence of word pairs "
        "from the base's. "
        f"{kept['rounds']} rounds on one thread took {took}.",
    ]
    return "\n".join(lines) + "\n"


def short_table(rows: Sequence[Mapping[str, Any]], kept: Mapping[str, Any]) -> str:
    """A line a method: its own metric for the base and after each round, the last champion's change, seconds."""
    rounds = range(1, kept["rounds"] + 1)
    lines = [
        "| method | metric | base | "
        + " | ".join(f"round {number}" for number in rounds)
        + " | round 1 against base | s |",
        "|---|---|" + "---|" * (len(rounds) + 3),
    ]
    for name, title in METHODS.items():
        mine = {(row["subject"], row["decoding"]): row for row in rows if row["method"] == name}
        if ("base", "greedy") not in mine:
            continue
        cells = []
        for subject in ("base", *(f"round-{number}" for number in rounds)):
            row = mine.get((subject, "greedy"))
            mark = "*" if row is not None and 2 * row["promoted"] > row["seeds"] else ""
            cells.append("" if row is None else f"{100 * row['metrics'][row['own']][0]:.1f}{mark}")
        first = mine["round-1", "greedy"]
        sure = "" if first["surely"] else ", surely worse" if first["surely_worse"] else ", not sure"
        seconds = [run["seconds"] for run in kept["runs"] if run["method"] == name]
        metric = "CHAIRi %" if first["own"] == "chair_i" else "accuracy %"
        lines.append(
            f"| {title} | {metric} | " + " | ".join(cells) + f" | {100 * first['change']:+.1f} points{sure} "
            f"| {statistics.mean(seconds):.0f} |"
        )
    seeded = ", ".join(map(str, kept["seeds"]))
    lines += [
        "",
        f"Greedy answers on {kept['scenes']} held-out scenes, means over seeds {seeded}; CHAIRi: lower is better, "
        "accuracy of short answers: higher is better. *: the gate promoted that round's model in most seeds; a round "
        "starts from the champion. Unless it says otherwise, each seed's paired 95 % interval is on the "
        f"better side of zero. Seconds: all {kept['rounds']} rounds, on one thread of a machine shared "
        "with another run. With Recall, length and drift: "
        "[benchmarks/results/methods.md](benchmarks/results/methods.md).",
    ]
    return "\n".join(lines)


def figure(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Own metric and recall over the rounds; a filled mark: the gate promoted the round's model in most seeds."""
    from matplotlib.figure import Figure

    plot = Figure(figsize=(10.5, 3.6), layout="constrained")
    panels = plot.subplots(1, 3)
    titles = ("CHAIRi % (lower is better)", "Recall % (higher is better)", "Accuracy of answers % (higher is better)")
    for panel, title, metric in zip(panels, titles, ("chair_i", "recall", "accuracy"), strict=True):
        panel.set_title(title, fontsize=10, loc="left")
        for index, name in enumerate(METHODS):
            points = [
                r
                for r in rows
                if r["method"] == name and metric in r["metrics"] and r["decoding"] in ("greedy", "plain")
            ]
            if not points:
                continue
            color, at = f"C{index}", range(len(points))
            values = [100 * one["metrics"][metric][0] for one in points]
            panel.plot(at, values, color=color, label=METHODS[name], linewidth=1.5)
            for x, (value, one) in enumerate(zip(values, points, strict=True)):
                won = one["subject"] == "base" or 2 * one["promoted"] > one["seeds"]
                panel.plot(x, value, "o", color=color, markerfacecolor=color if won else "white", markersize=6)
        rounds = max(
            len([r for r in rows if r["method"] == n and r["decoding"] in ("greedy", "plain")]) for n in METHODS
        )
        panel.set_xticks(range(rounds), ["base", *(f"round {n}" for n in range(1, rounds))])
        if metric == "chair_i":  # a few per cent apart, and far below the base
            panel.set_yscale("log")
            panel.set_yticks([0.5, 1, 2, 5, 10, 20, 40], ["0.5", "1", "2", "5", "10", "20", "40"])
            panel.minorticks_off()
        panel.grid(axis="y", alpha=0.3)
        if panel.get_legend_handles_labels()[0]:
            panel.legend(fontsize=8, frameon=False)
        panel.spines[["top", "right"]].set_visible(False)
    plot.savefig(file, metadata={"Date": None})


def write(kept: dict[str, Any], out: Path) -> str:
    """Results, table and figure as they are so far; the table."""
    kept["summary"] = summary(kept["runs"])
    text = table(kept["summary"], kept)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(kept, indent=1) + "\n")
    out.with_suffix(".md").write_text(text)
    figure(kept["summary"], FIGURE if out.parent == RESULTS else out.with_suffix(".svg"))
    return text


def main() -> None:
    """Run, print and write after every run; what a results file has already is not run again with --resume."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--scenes", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--resume", action="store_true", help="keep the runs that the results file has")
    parser.add_argument("--out", type=Path, default=RESULTS / "methods.json")
    options = parser.parse_args()
    os.environ.setdefault("VISLOOP_HOME", "artifacts")
    kept: dict[str, Any] = {
        "scenes": options.scenes,
        "rounds": options.rounds,
        "overrides": options.overrides,
        "runs": [],
    }
    if options.resume and options.out.is_file():
        kept |= json.loads(options.out.read_text())
    for seed in options.seeds:
        for name in options.methods:
            if any((run["method"], run["seed"]) == (name, seed) for run in kept["runs"]):
                continue
            run = run_method(name, seed, options.scenes, options.rounds, options.overrides)
            kept["runs"].append(run)
            kept["seeds"] = sorted({one["seed"] for one in kept["runs"]})
            write(kept, options.out)
            print(f"{name} seed {seed}: {run['seconds']} s, {[one[2] for one in run['decisions']]}", flush=True)
    print(write(kept, options.out))


if __name__ == "__main__":
    main()
