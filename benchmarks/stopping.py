"""When should a guided search stop, and what keeps it from repeating itself? The demo's scenes, CHAIR and Recall.

    python -m benchmarks.stopping                    writes benchmarks/results/stopping.json and .md
    python -m benchmarks.stopping --noise 0.3        adds a scorer with noise to them

CLIP-PRM and VisVM under every stop rule; V that reads the sentence, all up to it, or the policy's hidden states; V retrained
on guided captions; a penalty for repeating. The demo's scorer hardly errs, which no real one can say, so everything is done
twice: with it, and with noise added to its cosines (normal, fixed for an image and a sentence). Six minutes a seed and noise.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Hashable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from tasks.core.benchmarks.chair import METRICS

RESULTS = Path(__file__).parent / "results"
STATES = ["value.reads=policy_states", "value.lr=1e-3", "value.epochs=5"]
# what V is -> (profile overrides, searches)
GRID: dict[str, tuple[list[str], list[str]]] = {
    "no V": ([], ["greedy", "clip_prm", "clip_prm:stop=vote", "clip_prm:stop=vote,redundancy=0.2"]),
    "V of the sentence": (
        [],
        [
            "visvm",
            "visvm:stop=vote",
            "visvm:stop=chosen",
            "visvm:stop=value",
            "visvm:stop=vote,redundancy=0.2",
            "visvm:stop=value,redundancy=0.2",
        ],
    ),
    "V of all so far": (["value.state=prefix"], ["visvm", "visvm:stop=vote", "visvm:stop=value"]),
    "V of the policy's states": (STATES, ["visvm", "visvm:stop=vote", "visvm:stop=value"]),
    "V of the sentence, guided": (["value.guided_rounds=1"], ["visvm:stop=vote", "visvm:stop=value"]),
    "V of the policy's states, guided": (
        [*STATES, "value.guided_rounds=1"],
        ["visvm", "visvm:stop=vote", "visvm:stop=value"],
    ),
}


def add_noise(deviation: float) -> None:
    """From now on the scorer errs, always in the same way about the same image and sentence."""
    from tasks.core.models import sentence_scores

    class Noisy(sentence_scores.Cosines):
        """Cosines with noise."""

        def score(self, images: Any, asked: Sequence[tuple[Hashable, str]]) -> list[float | None]:
            names = {job: blake2b(images[job].tobytes(), digest_size=8).digest() for job in {job for job, _ in asked}}
            noise = [_normal(names[job] + text.encode()) for job, text in asked]
            return [
                one if one is None else one + deviation * more
                for one, more in zip(super().score(images, asked), noise, strict=True)
            ]

    if deviation:
        sentence_scores.Cosines = Noisy


def _normal(name: bytes) -> float:
    key = int.from_bytes(blake2b(name, digest_size=8).digest())
    return float(np.random.Generator(np.random.Philox(key=key)).standard_normal())


def run_seed(seed: int, scenes: int, noise: float) -> dict[str, Any]:
    """All of the grid on one seed: rows of metrics, the scorer's AUC, each V's rank correlation."""
    from benchmarks.measured import metrics_of
    from flows.profiles.loading import load_profile
    from flows.round.guide import learn_guide, search_captions
    from flows.round.improvement import scores_of
    from flows.self_training import check_health, prepare
    from tasks.configs.search import search_config
    from tasks.search.search import search_needs

    began = time.perf_counter()
    rows, ranks, took, auc = [], {}, {}, float("nan")
    for kind, (overrides, specs) in GRID.items():
        always = [f"seed={seed}", f"evaluate.images={scenes}", "health.action=warn"]
        profile = load_profile("demo", always + overrides)
        ground, base = prepare(profile)
        if kind == "no V":
            auc = check_health(profile, ground, base).facts["scorer_auc"]
        searches = {spec: search_config(profile.search, spec) for spec in specs}
        needs = frozenset().union(*(search_needs(config) for config in searches.values()))
        learning = time.perf_counter()
        _, guide = learn_guide(profile, ground, base.policy, 1, needs)
        if guide.value is not None:  # the answers and their scores are there from the first kind on
            ranks[kind], took[kind] = guide.value.facts["spearman"], round(time.perf_counter() - learning, 1)
        for spec, config in searches.items():
            found = search_captions(
                profile, ground, base.policy, guide, config, ground.bench["images"], ground.bench["samples"]
            )
            measured = scores_of(profile, ground, found, "base", spec)
            metrics = metrics_of(measured)
            rows.append({"value": kind, "search": spec, **{name: one[0] for name, one in metrics.items()}})
    return {
        "seed": seed,
        "noise": noise,
        "scorer_auc": auc,
        "spearman": ranks,
        "learning_seconds": took,
        "rows": rows,
        "seconds": round(time.perf_counter() - began, 1),
    }


def table(runs: list[dict[str, Any]], scenes: int) -> str:
    """Markdown: a table for each noise."""
    parts = []
    for noise in sorted({run["noise"] for run in runs}):
        same = [run for run in runs if run["noise"] == noise]
        auc = statistics.mean(run["scorer_auc"] for run in same)
        title = f"noise {noise:g} on its cosines" if noise else "as it is"
        parts.append(f"**The scorer {title}** (AUC within an image {auc:.3f})\n")
        parts.append("| V | search | CHAIRs % | CHAIRi % | Recall % | words |\n|---|---|---|---|---|---|")
        for index, row in enumerate(same[0]["rows"]):
            cells = [
                f"{(1 if name == 'length' else 100) * statistics.mean(run['rows'][index][name] for run in same):.1f}"
                for name in METRICS
            ]
            parts.append(f"| {row['value']} | `{row['search']}` | " + " | ".join(cells) + " |")
        parts.append(
            "\n| V | rank correlation with the held-out Monte-Carlo return | seconds to learn |\n|---|---|---|"
        )
        for kind in same[0]["spearman"]:
            rank, took = (statistics.mean(run[name][kind] for run in same) for name in ("spearman", "learning_seconds"))
            parts.append(f"| {kind} | {rank:.2f} | {took:.0f} |")
        parts.append("")
    seeds = ", ".join(str(seed) for seed in sorted({run["seed"] for run in runs}))
    parts.append(f"Means over seeds {seeds}, {scenes} held-out scenes each, 6 candidates a step.")
    return "\n".join(parts) + "\n"


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--scenes", type=int, default=150)
    parser.add_argument("--noise", type=float, default=0.0, help="deviation; results of other noises are kept")
    parser.add_argument("--out", type=Path, default=RESULTS / "stopping.json")
    options = parser.parse_args()
    # Another scorer is another store: its noise is no part of a key.
    os.environ["VISLOOP_HOME"] = f"artifacts/noise-{options.noise:g}"
    add_noise(options.noise)
    kept = json.loads(options.out.read_text())["runs"] if options.out.is_file() else []
    runs = [run for run in kept if run["noise"] != options.noise]
    for seed in options.seeds:
        runs.append(run_seed(seed, options.scenes, options.noise))
        print(f"seed {seed}: {runs[-1]['seconds']} s", flush=True)
        text = table(runs, options.scenes)
        options.out.write_text(json.dumps({"scenes": options.scenes, "runs": runs}, indent=1) + "\n")
        options.out.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
