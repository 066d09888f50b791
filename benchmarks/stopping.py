"""When should a guided search stop, and what keeps it from repeating itself? The demo's scenes, CHAIR and Recall.

    python -m benchmarks.stopping                    writes benchmarks/results/stopping.json and .md
    python -m benchmarks.stopping --noise 0.3        adds a scorer with noise to them

CLIP-PRM and VisVM under every rule that ends a search; V that reads the sentence, all up to it, or the policy's hidden states;
V retrained on guided captions; a penalty for repeating. The demo's scorer is hardly ever wrong, which holds for no real one, so
everything is done twice: with it, and with noise added to its cosines (normal, fixed for an image and a sentence). Six minutes
a seed and noise.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Hashable, Sequence
from hashlib import blake2b
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.measured import SCALES, STATES, metrics_of, on_scenes, options_parser, write_results
from flows.experiments.bench import arm, prepare_bench
from flows.round.improvement import check_health
from flows.round.measure import measure
from tasks.core.models import sentence_scores
from tasks.stage.runtime import use_runtime

SENTENCE, OWN_STATES = "V of the sentence", "V of the policy's states"
GUIDED = "value.guided_rounds=1"
FILTERED, VOTE, UNDER_0 = "end=policy,filter=margin", "end=vote", "end=guide,end_value=0"
ENDS = ("visvm", *(f"visvm:{end}" for end in (FILTERED, VOTE, UNDER_0)))
# what V is -> (profile overrides, searches)
GRID: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "no V": (
        (),
        ("greedy", "clip_prm", *(f"clip_prm:{end}" for end in (FILTERED, VOTE, f"{VOTE},redundancy=0.2"))),
    ),
    SENTENCE: (
        (),
        (*ENDS, *(f"visvm:{end}" for end in ("end=policy", f"{VOTE},redundancy=0.2", f"{UNDER_0},redundancy=0.2"))),
    ),
    "V of all so far": (("value.state=prefix",), ENDS),
    OWN_STATES: (STATES, ENDS),
    f"{SENTENCE}, guided": ((GUIDED,), ENDS[2:]),
    f"{OWN_STATES}, guided": ((*STATES, GUIDED), ENDS),
}  # fmt: skip


def noisy_cosines(deviation: float) -> type[sentence_scores.Cosines]:
    """A scorer with errors, always the same about the same image and sentence."""

    class Noisy(sentence_scores.Cosines):
        """Cosines with noise."""

        def score(self, images: sentence_scores.Images, pairs: Sequence[tuple[Hashable, str]]) -> list[float | None]:
            names = {job: blake2b(images[job].tobytes(), digest_size=8).digest() for job, _ in pairs}
            noise = [_normal(names[job] + text.encode()) for job, text in pairs]
            return [
                score if score is None else score + deviation * error
                for score, error in zip(super().score(images, pairs), noise, strict=True)
            ]

    return Noisy


def _normal(name: bytes) -> float:
    key = int.from_bytes(blake2b(name, digest_size=8).digest())
    return float(np.random.Generator(np.random.Philox(key=key)).standard_normal())


def run_seed(seed: int, scenes: int, noise: float, overrides: Sequence[str]) -> dict[str, Any]:
    """All of the grid on one seed: rows of metrics, the scorer's AUC, each V's rank correlation."""
    began = time.perf_counter()
    rows, ranks, learning, auc = [], {}, {}, float("nan")
    for kind, (settings, specs) in GRID.items():
        profile = on_scenes("demo", seed, scenes, ("health.action=warn", *settings, *overrides))
        with use_runtime(profile.runtime):
            fitting = time.perf_counter()
            bench = prepare_bench(profile, specs)
            if kind == "no V":
                auc = check_health(bench.context, measure(bench.context, "base", bench.context.base)).scorer_auc
            else:  # the answers and their scores are there from the first kind on
                ranks[kind], learning[kind] = bench.value.spearman, round(time.perf_counter() - fitting, 1)
            for spec in specs:
                metrics = metrics_of(arm(bench, spec).scores)
                rows.append({"value": kind, "search": spec, **{name: metrics[name][0] for name in metrics}})
    return {
        "seed": seed,
        "noise": noise,
        "scorer_auc": auc,
        "spearman": ranks,
        "learning_seconds": learning,
        "rows": rows,
        "seconds": round(time.perf_counter() - began, 1),
    }


def table(runs: Sequence[dict[str, Any]], scenes: int) -> str:
    """Markdown: a table for each noise."""
    parts = []
    for noise in sorted({run["noise"] for run in runs}):
        same = [run for run in runs if run["noise"] == noise]
        auc = statistics.mean(run["scorer_auc"] for run in same)
        title = f"noise {noise:g} on its cosines" if noise else "as it is"
        parts.append(f"**The scorer {title}** (AUC within an image {auc:.3f})\n")
        parts.append("| V | search | CHAIRs % | CHAIRi % | Recall % | words |\n|---|---|---|---|---|---|")
        for index, row in enumerate(same[0]["rows"]):
            means = {name: statistics.mean(run["rows"][index][name] for run in same) for name in SCALES}
            columns = " | ".join(f"{scale * means[name]:.1f}" for name, scale in SCALES.items())
            parts.append(f"| {row['value']} | `{row['search']}` | {columns} |")
        parts.append(
            "\n| V | rank correlation with the held-out Monte-Carlo return | seconds to learn |\n|---|---|---|"
        )
        for kind in same[0]["spearman"]:
            rank, seconds = (
                statistics.mean(run[name][kind] for run in same) for name in ("spearman", "learning_seconds")
            )
            parts.append(f"| {kind} | {rank:.2f} | {seconds:.0f} |")
        parts.append("")
    seeds = ", ".join(str(seed) for seed in sorted({run["seed"] for run in runs}))
    parts.append(f"Means over seeds {seeds}, {scenes} held-out scenes each, 6 candidates a step.")
    return "\n".join(parts) + "\n"


def main() -> None:
    """Run, print and write."""
    parser = options_parser(__doc__, "stopping", scenes=150, seeds=(0, 1))
    parser.add_argument("--noise", type=float, default=0.0, help="deviation; results of other noises are kept")
    options = parser.parse_args()
    # Another scorer needs another store: its noise is no part of a key.
    os.environ["VISLOOP_HOME"] = f"artifacts/noise-{options.noise:g}"
    earlier = json.loads(options.out.read_text())["runs"] if options.out.is_file() else []
    runs = [run for run in earlier if run["noise"] != options.noise]
    cosines = noisy_cosines(options.noise) if options.noise else sentence_scores.Cosines
    with mock.patch.object(sentence_scores, "Cosines", cosines):
        for seed in options.seeds:
            runs.append(run_seed(seed, options.scenes, options.noise, options.overrides))
            print(f"seed {seed}: {runs[-1]['seconds']} s", flush=True)
            text = table(runs, options.scenes)
            write_results(options.out, {"scenes": options.scenes, "runs": runs}, text)
    print(text)


if __name__ == "__main__":
    main()
