"""Tables and the figure of `benchmarks.methods`: what every method does to its own metric, round by round."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

METHODS = {  # profile -> what it is called
    "demo": "VisVM",
    "demo-vimar": "ViMaR",
    "demo-fisao": "FiSAO",
    "demo-dpo": "DPO",
    "demo-sentinel": "SENTINEL",
    "demo-grpo": "GRPO",
    "demo-cot": "LLaVA-CoT",
}
# What VisVM's and ViMaR's figures stand beside: one round, whose captions are searched otherwise.
CONTROLS = {
    "demo random": "control: VisVM with random numbers for V",
    "demo gamma 0": "control: VisVM with V of gamma 0",
    "demo clip_prm": "control: CLIP-PRM",
    "demo best_of_n": "control: best of as many answers as VisVM has candidates",
    "demo greedy": "control: greedy sentences that end as VisVM does",
    "demo-vimar random": "control: ViMaR with random numbers for V",
    "demo-vimar gamma 0": "control: ViMaR with V of gamma 0",
}
TITLES = METHODS | CONTROLS
OWN = {"captions": ("chair", "chair_i", -1), "answers": ("vqa", "accuracy", 1)}  # benchmark, metric, better direction


def summary(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each method and subject: means over seeds, and whether every seed's paired interval agrees."""
    rows = []
    for name in TITLES:
        same = [run for run in runs if run["method"] == name]
        if not same:
            continue
        subjects = dict.fromkeys((m[0], m[1]) for run in same for m in run["metrics"] if m[2] != "drift")
        for subject, decoding in sorted(subjects, key=lambda pair: (pair[0] != "base", pair)):
            rows.append(_row(name, subject, decoding, same))
    return rows


def _row(name: str, subject: str, decoding: str, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    benchmark, own, better = OWN[runs[0]["task"]]
    values = [
        {m[3]: m[4] for m in run["metrics"] if m[:2] == [subject, decoding] and m[2] == benchmark} for run in runs
    ]
    values = [metrics for metrics in values if metrics]
    changes = [c[3:] for run in runs for c in run["against_base"] if c[:2] == [subject, decoding] and c[2] == own]
    promoted = [bool(d[1]) for run in runs for d in run["decisions"] if d[0] == subject]
    drift = [m[4] for run in runs for m in run["metrics"] if (m[0], *m[2:4]) == (subject, "drift", "ngram_drift")]
    shared = [metric for metric in sorted(values[0]) if all(metric in metrics for metrics in values)]
    return {
        "method": name,
        "subject": subject,
        "decoding": decoding,
        "own": own,
        "seeds": len(values),
        "metrics": {metric: _mean_and_range([metrics[metric] for metrics in values]) for metric in shared},
        "change": statistics.mean(c[0] for c in changes) if changes else None,
        # Every seed's paired interval lies on the better side of zero.
        "surely": bool(changes) and all((c[2] < 0) if better < 0 else (c[1] > 0) for c in changes),
        "surely_worse": bool(changes) and all((c[1] > 0) if better < 0 else (c[2] < 0) for c in changes),
        "promoted": sum(promoted),
        "ngram_drift": statistics.mean(drift) if drift else None,
    }


def _mean_and_range(values: Sequence[float]) -> list[float]:
    return [statistics.mean(values), min(values), max(values)]


def table(rows: Sequence[Mapping[str, Any]], results: Mapping[str, Any]) -> str:
    """The Markdown table."""
    lines = [
        "| method | | own metric % | against its base | Recall % | words | drift | promoted |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        mean, low, high = (100 * value for value in row["metrics"][row["own"]])
        change = ""
        if row["change"] is not None:
            sure = "surely better" if row["surely"] else "surely worse" if row["surely_worse"] else "not sure"
            change = f"{100 * row['change']:+.1f} points, {sure}"
        recall = f"{100 * row['metrics']['recall'][0]:.1f}" if "recall" in row["metrics"] else ""
        words = f"{row['metrics']['length'][0]:.1f}" if "length" in row["metrics"] else ""
        drift = "" if row["ngram_drift"] is None else f"{row['ngram_drift']:.2f}"
        promoted = f"{row['promoted']} of {row['seeds']}" if row["subject"] != "base" else ""
        lines.append(
            f"| {TITLES[row['method']]} | {row['subject']}, {row['decoding']} | {mean:.1f} ({low:.1f} to {high:.1f}) | "
            f"{change} | {recall} | {words} | {drift} | {promoted} |"
        )
    durations = {name: seconds_of(name, results) for name in TITLES}
    took = ", ".join(f"{TITLES[name]} {statistics.mean(times):.0f} s" for name, times in durations.items() if times)
    lines += [
        "",
        "Own metric: CHAIRi (lower is better), for LLaVA-CoT the accuracy of short answers (higher is better). Means over "
        f"seeds {', '.join(map(str, results['seeds']))} (in brackets: lowest and highest), "
        f"{results['scenes']} held-out scenes each. "
        "“Surely”: the paired 95 % interval of every seed excludes zero. Drift: Jensen-Shannon divergence of word pairs "
        "from the base's. "
        f"{results['rounds']} rounds (controls: one) on one thread took {took}.",
    ]
    return "\n".join(lines) + "\n"


def short_table(rows: Sequence[Mapping[str, Any]], results: Mapping[str, Any]) -> str:
    """A line a method: its own metric for the base and after each round, the last champion's change, seconds."""
    rounds = range(1, results["rounds"] + 1)
    lines = [
        "| method | metric | base | "
        + " | ".join(f"round {number}" for number in rounds)
        + " | round 1 against base | s |",
        "|---|---|" + "---|" * (len(rounds) + 3),
    ]
    for name, title in TITLES.items():
        by_subject = {(row["subject"], row["decoding"]): row for row in rows if row["method"] == name}
        if ("base", "greedy") not in by_subject:
            continue
        columns = []
        for subject in ("base", *(f"round-{number}" for number in rounds)):
            row = by_subject.get((subject, "greedy"))
            mark = "*" if row is not None and 2 * row["promoted"] > row["seeds"] else ""
            columns.append("" if row is None else f"{100 * row['metrics'][row['own']][0]:.1f}{mark}")
        first = by_subject["round-1", "greedy"]
        sure = "" if first["surely"] else ", surely worse" if first["surely_worse"] else ", not sure"
        seconds = seconds_of(name, results)
        metric = "CHAIRi %" if first["own"] == "chair_i" else "accuracy %"
        lines.append(
            f"| {title} | {metric} | " + " | ".join(columns) + f" | {100 * first['change']:+.1f} points{sure} "
            f"| {statistics.mean(seconds):.0f} |"
        )
    seeded = ", ".join(map(str, results["seeds"]))
    lines += [
        "",
        f"Greedy answers on {results['scenes']} held-out scenes, means over seeds {seeded}; CHAIRi: lower is better, "
        "accuracy of short answers: higher is better. *: the gate promoted that round's model in most seeds; a round "
        "starts from the champion. Unless it says otherwise, each seed's paired 95 % interval is on the "
        f"better side of zero. Seconds: all {results['rounds']} rounds, on one thread of a machine shared "
        "with another run. With Recall, length and drift: "
        "[benchmarks/results/methods.md](benchmarks/results/methods.md).",
    ]
    return "\n".join(lines)


def seconds_of(name: str, results: Mapping[str, Any]) -> list[float]:
    """A method's seconds in every seed."""
    return [run["seconds"] for run in results["runs"] if run["method"] == name]


def figure(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Own metric and recall over the rounds; a filled mark: the gate promoted the round's model in most seeds."""
    plot = Figure(figsize=(10.5, 3.6), layout="constrained")
    titles = ("CHAIRi % (lower is better)", "Recall % (higher is better)", "Accuracy of answers % (higher is better)")
    lines = {
        name: [row for row in rows if row["method"] == name and row["decoding"] in ("greedy", "plain")]
        for name in METHODS
    }
    rounds = max(1, *map(len, lines.values()))
    for panel, title, metric in zip(plot.subplots(1, 3), titles, ("chair_i", "recall", "accuracy"), strict=True):
        panel.set_title(title, fontsize=10, loc="left")
        for index, (name, line) in enumerate(lines.items()):
            _draw_line(panel, [row for row in line if metric in row["metrics"]], metric, f"C{index}", METHODS[name])
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


def _draw_line(panel: Axes, points: Sequence[Mapping[str, Any]], metric: str, color: str, label: str) -> None:
    """One method's metric over the rounds; nothing without points."""
    if not points:
        return
    values = [100 * row["metrics"][metric][0] for row in points]
    panel.plot(range(len(points)), values, color=color, label=label, linewidth=1.5)
    for x, (value, row) in enumerate(zip(values, points, strict=True)):
        filled = row["subject"] == "base" or 2 * row["promoted"] > row["seeds"]
        panel.plot(x, value, "o", color=color, markerfacecolor=color if filled else "white", markersize=6)
