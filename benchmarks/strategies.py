"""Which strategy is worth its work? All of them on held-out scenes of the demo, three seeds; and over the number of candidates.

    python -m benchmarks.strategies            writes benchmarks/results/strategies.json and .md

Every strategy searches the same scenes under the same prompts with the base policy, at six candidates; scorer, margin and value
models are those of the loop's first round. Work is measured, not nominal: decoded tokens and seconds a caption. What a trace
shows of a search's choices stands beside its figures, for the reasons of their order. majority_vote is left out: it votes
over short answers, and hardly two captions are equal. Everything goes through the stages of `visloop compare`, without Prefect.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from benchmarks.measured import SCALES, STATES, changes_of, metrics_of, on_scenes, options_parser, spread, write_results
from benchmarks.strategy_traces import in_words, trace_summary
from flows.experiments.bench import arm, captions_of, prepare_bench
from flows.experiments.compare import enter
from flows.profiles.loading import Profile
from tasks.search.search import search_needs
from tasks.stage.runtime import use_runtime

CANDIDATES = 6
SPECS = (
    "greedy", "sample", "best_of_n", "best_of_n:by=value", "best_of_n:by=judge", "clip_prm", "visvm", "visvm:end=vote",
    "visvm:end=guide,end_value=0", "clip_prm:end=policy,filter=margin", "visvm:end=policy,filter=margin",
    "visvm:published=true", "vimar", "vimar:by=score", "vimar:published=true", "stage_beam", "swires",
    "beam", "diverse_beam", "contrastive",
)  # fmt: skip
TEXT = ("value.reads=image_and_text", "value.train=full", "value.lr=3e-4", "value.epochs=2")
# Other value models in their place: a head on the policy's own states; and V without a future, which is CLIP-PRM's reward.
OTHERS = (
    ("{} (V of the policy's states)", STATES, ("visvm", "visvm:end=vote", "visvm:end=guide,end_value=0", "vimar")),
    ("{} (gamma 0)", (*TEXT, "value.gamma=0"), ("visvm", "visvm:end=vote")),
)
CURVE = ("best_of_n", "clip_prm", "visvm", "vimar")
WIDTHS = (1, 2, 4, 8, 16)
EXPECTED = (
    "greedy",
    "best_of_n",
    "clip_prm",
    "visvm",
    "vimar",
)  # from most hallucination to least, at equal candidates


def search_specs(profile: Profile, specs: Sequence[str], widths: Sequence[int]) -> list[dict[str, Any]]:
    """Search the benchmark's scenes by every spec at every width, greedy first; a row each, with metrics, work and trace."""
    entries = enter(profile, specs, widths)
    with use_runtime(profile.runtime):
        bench = prepare_bench(profile, needs=frozenset().union(*(search_needs(entry.config) for entry in entries)))
        rows, greedy = [], None
        for entry in entries:
            searched = arm(bench, entry.name, config=entry.config)
            greedy = greedy or searched.scores
            metrics = metrics_of(searched.scores)
            work = {name: count / captions_of(searched) for name, count in searched.result.counters.items()}
            rows.append({
                "name": entry.name.removesuffix(f"@{CANDIDATES}") if len(widths) == 1 else entry.name,
                "metrics": metrics,
                "against_greedy": changes_of(profile, searched.scores, greedy),
                "tokens": work.pop("decode_tokens"),
                "seconds": work.pop("search_seconds"),
                "work": work,
                "trace": trace_summary(searched.result, bench.context.annotations),
            })  # fmt: skip
            print(f"{entry.name}: CHAIRi {100 * metrics['chair_i'][0]:.1f} %", flush=True)
    return rows


def run_seed(seed: int, scenes: int, overrides: Sequence[str]) -> dict[str, Any]:
    """Every strategy at six candidates, and those that V guides with other value models."""
    began = time.perf_counter()
    rows = search_specs(on_scenes("demo", seed, scenes, (*overrides, *TEXT)), SPECS, [CANDIDATES])
    for name, value, specs in OTHERS:
        _, *others = search_specs(on_scenes("demo", seed, scenes, (*overrides, *value)), specs, [CANDIDATES])
        rows += [{**row, "name": name.format(row["name"])} for row in others]
    return {"seed": seed, "rows": rows, "took": round(time.perf_counter() - began, 1)}


def summary(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per strategy the mean over seeds, lowest and highest; `surely`: below greedy's CHAIRi by every seed's interval."""
    rows = []
    for index, first in enumerate(runs[0]["rows"]):
        same = [run["rows"][index] for run in runs]
        row: dict[str, Any] = {"name": first["name"]}
        row |= {metric: spread([result["metrics"][metric][0] for result in same]) for metric in SCALES}
        row |= {work: spread([result[work] for result in same]) for work in ("tokens", "seconds")}
        row["surely"] = all(result["against_greedy"]["chair_i"][2] < 0 for result in same)
        rows.append(row)
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The Markdown table of all strategies."""
    lines = ["| | CHAIRs % | CHAIRi % | Recall % | words | tokens | ms |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        columns = []
        for name, scale in {**SCALES, "tokens": 1, "seconds": 1000}.items():
            mean, low, high = (scale * row[name][key] for key in ("mean", "lowest", "highest"))
            columns.append(f"{mean:.1f}" if low == high else f"{mean:.1f} ({low:.1f} to {high:.1f})")
        lines.append(f"| `{row['name']}` | " + " | ".join(columns) + " |")
    return "\n".join(lines) + "\n"


def curve_table(rows: Sequence[dict[str, Any]]) -> str:
    """The Markdown table over the number of candidates: CHAIRi, Recall and tokens."""
    lines = ["| | " + " | ".join(f"K = {width}" for width in WIDTHS) + " |", "|---|" + "---|" * len(WIDTHS)]
    by_name = {row["name"]: row for row in rows}
    for spec in CURVE:
        columns = []
        for width in WIDTHS:
            row = by_name[f"{spec}@{width}"]
            chair, recall = (100 * row["metrics"][metric][0] for metric in ("chair_i", "recall"))
            columns.append(f"{chair:.1f} / {recall:.1f} / {row['tokens']:.0f}")
        lines.append(f"| `{spec}` | " + " | ".join(columns) + " |")
    return "\n".join(lines) + "\n"


def reasons(rows: Sequence[dict[str, Any]], first: dict[str, Any]) -> str:
    """Where the order of CHAIRi is not the expected one; then every trace of the first seed in words."""
    chair = {row["name"]: row["chair_i"]["mean"] for row in rows}
    swapped = [
        f"- `{later}` ({100 * chair[later]:.1f} %) is not below `{earlier}` ({100 * chair[earlier]:.1f} %)"
        for i, earlier in enumerate(EXPECTED)
        for later in EXPECTED[i + 1 :]
        if chair[later] >= chair[earlier]
    ]
    order = " > ".join(f"`{name}`" for name in EXPECTED)
    text = f"Expected order of CHAIRi: {order}. " + ("It holds.\n" if not swapped else "It doesn't hold:\n\n")
    traces = [f"- `{row['name']}`: {in_words(row['trace'])}" for row in first["rows"]]
    return text + "\n".join(swapped) + f"\n\nFrom the traces of seed {first['seed']}:\n\n" + "\n".join(traces) + "\n"


def page(results: dict[str, Any]) -> str:
    """The Markdown of all results."""
    seeded = ", ".join(map(str, results["seeds"]))
    head = (
        f"Means over seeds {seeded} (in brackets: lowest and highest seed), {results['scenes']} held-out scenes each, "
        f"{CANDIDATES} candidates. Tokens: decoded a caption, of all candidates. ms: a caption, models loaded."
    )
    second = (
        f"Over the number of candidates (seed {results['seeds'][0]}, {results['curve_scenes']} scenes): "
        "CHAIRi % / Recall % / tokens a caption."
    )
    rows, curve = results["summary"], curve_table(results["curve"])
    return "\n".join([head + "\n", table(rows), second + "\n", curve, reasons(rows, results["runs"][0])])


def main() -> None:
    """Run, print and write."""
    parser = options_parser(__doc__, "strategies", scenes=500)
    parser.add_argument("--curve-scenes", type=int, default=200)
    options = parser.parse_args()
    results: dict[str, Any] = {"scenes": options.scenes, "seeds": [], "curve_scenes": options.curve_scenes,
                               "overrides": options.overrides, "runs": []}  # fmt: skip
    profile = on_scenes("demo", options.seeds[0], options.curve_scenes, options.overrides)
    results["curve"] = search_specs(profile, CURVE, WIDTHS)
    for seed in options.seeds:
        results["runs"].append(run_seed(seed, options.scenes, options.overrides))
        results["seeds"].append(seed)
        results["summary"] = summary(results["runs"])
        print(f"seed {seed}: {results['runs'][-1]['took']} s", flush=True)
        write_results(options.out, results, page(results))
    print(page(results))


if __name__ == "__main__":
    main()
