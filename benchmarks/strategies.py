"""Which strategy is worth its work? All of them on held-out scenes of the demo, three seeds; and over the number of candidates.

    python -m benchmarks.strategies            writes benchmarks/results/strategies.json and .md

Every strategy searches the same scenes under the same prompts with the base policy, at six candidates; scorer, margin and value
models are those of the loop's first round. Work is measured, not nominal: decoded tokens and seconds a caption. What a trace
says of a search's choices stands beside its figures, for the reasons of their order. majority_vote is left out: it votes
over short answers, and hardly two captions are equal. Everything goes through the stages of `visloop compare`, without Prefect.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.core.benchmarks.chair import METRICS

RESULTS = Path(__file__).parent / "results"
CANDIDATES = 6
SPECS = (
    "greedy", "sample", "best_of_n", "best_of_n:by=value", "best_of_n:by=judge", "clip_prm", "visvm", "visvm:stop=vote",
    "visvm:stop=value", "visvm:published=true", "vimar", "vimar:by=score", "vimar:published=true", "stage_beam", "swires",
    "beam", "diverse_beam", "contrastive",
)  # fmt: skip
TEXT = ("value.reads=image_and_text", "value.train=full", "value.lr=3e-4", "value.epochs=2")
# Other value models in their place: a head on the policy's own states; and V without a future, which is CLIP-PRM's reward.
OTHERS = (
    (
        "{} (V of the policy's states)",
        ("value.reads=policy_states", "value.lr=1e-3", "value.epochs=5"),
        ("visvm", "visvm:stop=vote", "visvm:stop=value", "vimar"),
    ),
    ("{} (gamma 0)", (*TEXT, "value.gamma=0"), ("visvm", "visvm:stop=vote")),
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


def search_specs(overrides: Sequence[str], specs: Sequence[str], widths: Sequence[int]) -> list[dict[str, Any]]:
    """Search the benchmark's scenes by every spec at every width; a row each, with metrics, work and trace."""
    from flows.experiments.comparison import searched
    from flows.experiments.contenders import enter

    from benchmarks.measured import changes_of, metrics_of
    from benchmarks.strategy_traces import trace_summary
    from flows.profiles.loading import load_profile
    from flows.round.guide import lay_ground, learn_guide
    from flows.round.improvement import scores_of
    from tasks.search.search import search_needs

    profile = load_profile("demo", overrides)
    entered = enter(profile, specs, widths)
    ground, base = lay_ground(profile)
    needs = frozenset[str]().union(*(search_needs(one.config) for one in entered))
    _, guide = learn_guide(profile, ground, base, 1, needs)
    rows, greedy = [], None
    for one in entered:
        found = searched(profile, ground, base, guide, one)
        scores = scores_of(profile, ground, found, "base", one.name)
        greedy = greedy or scores
        metrics = metrics_of(scores)
        work = {name: count / profile.evaluate.images for name, count in found.counters.items()}
        rows.append({
            "name": one.name.removesuffix(f"@{CANDIDATES}") if len(widths) == 1 else one.name,
            "metrics": metrics,
            "against_greedy": changes_of(profile, scores, greedy),
            "tokens": work.pop("decode_tokens"),
            "seconds": work.pop("search_seconds"),
            "work": work,
            "trace": trace_summary(found, ground.truth),
        })  # fmt: skip
        print(f"{one.name}: CHAIRi {100 * metrics['chair_i'][0]:.1f} %", flush=True)
    return rows


def run_seed(seed: int, scenes: int, overrides: Sequence[str]) -> dict[str, Any]:
    """Every strategy at six candidates, and those that V guides with other value models."""
    began = time.perf_counter()
    set_ = [f"seed={seed}", f"evaluate.images={scenes}", *overrides]
    rows = search_specs([*set_, *TEXT], SPECS, [CANDIDATES])
    for name, value, specs in OTHERS:
        for row in search_specs([*set_, *value], specs, [CANDIDATES])[1:]:  # the first is greedy
            rows.append({**row, "name": name.format(row["name"])})
    return {"seed": seed, "rows": rows, "took": round(time.perf_counter() - began, 1)}


def summary(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per strategy the mean over seeds, lowest and highest; `surely`: below greedy's CHAIRi by every seed's interval."""
    rows = []
    for index, first in enumerate(runs[0]["rows"]):
        same = [run["rows"][index] for run in runs]
        row: dict[str, Any] = {"name": first["name"]}
        for metric in METRICS:
            row[metric] = _spread([one["metrics"][metric][0] for one in same])
        for work in ("tokens", "seconds"):
            row[work] = _spread([one[work] for one in same])
        row["surely"] = all(one["against_greedy"]["chair_i"][2] < 0 for one in same)
        rows.append(row)
    return rows


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"mean": statistics.mean(values), "lowest": min(values), "highest": max(values)}


def table(rows: list[dict[str, Any]]) -> str:
    """The Markdown table of all strategies."""
    lines = ["| | CHAIRs % | CHAIRi % | Recall % | words | tokens | ms |", "|---|---|---|---|---|---|---|"]
    scales = {"chair_s": 100, "chair_i": 100, "recall": 100, "length": 1, "tokens": 1, "seconds": 1000}
    for row in rows:
        cells = []
        for name, scale in scales.items():
            mean, low, high = (scale * row[name][key] for key in ("mean", "lowest", "highest"))
            cells.append(f"{mean:.1f}" if low == high else f"{mean:.1f} ({low:.1f} to {high:.1f})")
        lines.append(f"| `{row['name']}` | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def curve_table(rows: list[dict[str, Any]]) -> str:
    """The Markdown table over the number of candidates: CHAIRi, Recall and tokens."""
    lines = ["| | " + " | ".join(f"K = {width}" for width in WIDTHS) + " |", "|---|" + "---|" * len(WIDTHS)]
    by_name = {row["name"]: row for row in rows}
    for spec in CURVE:
        cells = []
        for width in WIDTHS:
            row = by_name[f"{spec}@{width}"]
            chair, recall = (100 * row["metrics"][metric][0] for metric in ("chair_i", "recall"))
            cells.append(f"{chair:.1f} / {recall:.1f} / {row['tokens']:.0f}")
        lines.append(f"| `{spec}` | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def reasons(rows: list[dict[str, Any]], runs: list[dict[str, Any]]) -> str:
    """Where the order of CHAIRi is not the expected one; then what every trace of the first seed says."""
    from benchmarks.strategy_traces import in_words

    chair = {row["name"]: row["chair_i"]["mean"] for row in rows}
    swapped = [
        f"- `{later}` ({100 * chair[later]:.1f} %) is not below `{earlier}` ({100 * chair[earlier]:.1f} %)"
        for i, earlier in enumerate(EXPECTED)
        for later in EXPECTED[i + 1 :]
        if chair[later] >= chair[earlier]
    ]
    order = " > ".join(f"`{name}`" for name in EXPECTED)
    text = f"Expected order of CHAIRi: {order}. " + ("It holds.\n" if not swapped else "It doesn't hold:\n\n")
    told = [f"- `{row['name']}`: {in_words(row['trace'])}" for row in runs[0]["rows"]]
    return text + "\n".join(swapped) + f"\n\nFrom the traces of seed {runs[0]['seed']}:\n\n" + "\n".join(told) + "\n"


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--scenes", type=int, default=500)
    parser.add_argument("--curve-scenes", type=int, default=200)
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--out", type=Path, default=RESULTS / "strategies.json")
    options = parser.parse_args()
    os.environ.setdefault("VISLOOP_HOME", "artifacts")
    set_ = [f"seed={options.seeds[0]}", f"evaluate.images={options.curve_scenes}", *options.overrides]
    kept: dict[str, Any] = {"scenes": options.scenes, "seeds": [], "curve_scenes": options.curve_scenes,
                            "overrides": options.overrides, "runs": []}  # fmt: skip
    kept["curve"] = search_specs(set_, CURVE, WIDTHS)
    for seed in options.seeds:
        kept["runs"].append(run_seed(seed, options.scenes, options.overrides))
        kept["seeds"].append(seed)
        kept["summary"] = summary(kept["runs"])
        print(f"seed {seed}: {kept['runs'][-1]['took']} s", flush=True)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(kept, indent=1) + "\n")
        options.out.with_suffix(".md").write_text(page(kept))
    print(page(kept))


def page(kept: dict[str, Any]) -> str:
    """The Markdown of all results."""
    seeded = ", ".join(map(str, kept["seeds"]))
    head = (
        f"Means over seeds {seeded} (in brackets: lowest and highest seed), {kept['scenes']} held-out scenes each, "
        f"{CANDIDATES} candidates. Tokens: decoded a caption, of all candidates. ms: a caption, models loaded."
    )
    second = (
        f"Over the number of candidates (seed {kept['seeds'][0]}, {kept['curve_scenes']} scenes): "
        "CHAIRi % / Recall % / tokens a caption."
    )
    rows = kept["summary"]
    return "\n".join([head + "\n", table(rows), second + "\n", curve_table(kept["curve"]), reasons(rows, kept["runs"])])


if __name__ == "__main__":
    main()
