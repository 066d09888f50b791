"""Does looking ahead beat the next reward? The grid: worlds x scorers x methods x seeds, at the Recall of greedy.

    python -m flows.pretrain_demo --seed 0      and 1, 2: once, all models into the store
    python -m benchmarks.claim                  writes benchmarks/results/claim.json and .md, docs/experiments/claim.svg

A seed is a fresh draw of everything: models, scenes to train on, answers, and scenes to measure on. Two worlds: the policy of
`committed` captions, whose early choices breed later inventions, and that of `independent` ones, whose choices change nothing
that follows. What is claimed for V of gamma 0.9 has to be seen in the first and not in the second.

Every method is a curve: its ending value is swept over quantiles of its own guide. Of a curve the point is taken that ends
most readily while its Recall is within one point of greedy's; the choice looks at Recall alone. A cell is saved when it is
done, so a broken run goes on where it stopped; `--cells` runs some of them, so that several processes can share the work.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from hashlib import sha256
from itertools import permutations, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.claim_page import write_page
from benchmarks.measured import options_parser
from flows.experiments.bench import Arm, Bench, arm, prepare_bench, tokens_of, with_settings
from flows.experiments.controls import best_of_equal
from flows.profiles.loading import Profile, load_profile
from storage import lake, objects
from storage.schema import Reward, Score, Value
from tasks.configs.search import extended
from tasks.core.benchmarks.chair import COUNTS, METRICS, ChairItem, chair_ratios
from tasks.core.metrics import Ratio, bootstrap_draws, estimate, paired_difference, resample
from tasks.demo.built import models_of
from tasks.stage.runtime import use_runtime

WORLDS = {"committed": "policy", "independent": "policy-independent"}  # world -> folder of its policy
SCORERS = ("scorer", "scorer-half", "oracle")
QUANTILES = (0.35, 0.5, 0.65, 0.8)  # of the guide, as ending values
WEAK = (0.2, 0.4)  # quantiles of V that ViMaR replaces sentences below
TOLERANCE = 0.01  # of Recall
RESAMPLES = 1000
# Fixed before the grid was run; docs/decisions/2026-12-01-the-claim.md says when and how.
SETTINGS = (
    "search.end=action",
    "evaluate.decodings=[greedy]",
    "label.shaping=centred",
    "label.tau.kind=quantile",
    "label.tau.q=0.55",
    "value.reads=policy_states",
    "value.lr=1e-3",
    "value.epochs=5",
    "value.terminal=zero_terminal",
    "value.target=mc",
    "value.action=warn",
    "sample.images=600",
)


class Cell(NamedTuple):
    """One policy with one scorer."""

    world: str
    scorer: str
    seed: int

    @property
    def name(self) -> str:
        """As the results call it."""
        return f"{self.world}/{self.scorer}/{self.seed}"


def profile_of(cell: Cell, scenes: int, overrides: Sequence[str] = ()) -> Profile:
    """The demo with the cell's models and the seed's scenes."""
    models = models_of(cell.seed)
    own = (
        f"policy.checkpoint={models / WORLDS[cell.world]}",
        f"scorer.checkpoint={models / cell.scorer}",
        f"seed={cell.seed}",
        f"data.train.seed={cell.seed}",
        f"data.benchmark.seed={cell.seed}",
        f"evaluate.images={scenes}",
    )
    return load_profile("demo", [*own, *SETTINGS, *overrides])


def measure(cell: Cell, scenes: int, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """All methods of a cell: their curves, the point of each at greedy's Recall, and paired differences between points."""
    began = time.perf_counter()
    profile = profile_of(cell, scenes, overrides)
    with use_runtime(profile.runtime):
        bench = prepare_bench(profile, ["visvm", "clip_prm", "vimar"], ["margin", "scorer"])
        now = with_settings(bench, value={"gamma": 0.0})
        curves = dict(curves_of(bench, now))
    counted = {name: [ratios_of(measured) for measured in arms_of] for name, arms_of in curves.items()}
    draws = bootstrap_draws(len(counted["greedy"][0]["recall"].top), RESAMPLES, seed=cell.seed)
    floor = counted["greedy"][0]["recall"].value() - TOLERANCE
    at = {name: matched([row["recall"].value() for row in rows], floor) for name, rows in counted.items()}
    return {
        "cell": cell.name,
        "points": {
            name: [point_of(measured, row, draws) for measured, row in zip(arms_of, counted[name], strict=True)]
            for name, arms_of in curves.items()
        },
        "at": at,
        "differences": {
            f"{a} - {b}": difference(counted[a][at[a]], counted[b][at[b]], draws) for a, b in permutations(counted, 2)
        },
        "value": {"V, gamma 0.9": dict(bench.value.health), "V, gamma 0": dict(now.value.health)},
        "seconds": round(time.perf_counter() - began, 1),
    }


def curves_of(bench: Bench, now: Bench) -> Iterator[tuple[str, list[Arm]]]:
    """(method, its arms); `now` is the bench whose V has gamma 0."""
    yield "greedy", [arm(bench, "greedy")]
    scores = [row.score for row in lake.read_rows(Reward, bench.rewards.rewards) if row.score is not None]
    foresight = list(_swept(bench, "visvm", "V, gamma 0.9", _values(bench)))
    yield "V, gamma 0.9", foresight
    yield "V, gamma 0", list(_swept(now, "visvm", "V, gamma 0", _values(now)))
    yield "random V", list(_swept(bench, "visvm:guide=random", "random V", _values(bench)))
    yield "CLIP-PRM", list(_swept(bench, "clip_prm", "CLIP-PRM", scores))
    yield "greedy, the same end", list(_swept(bench, "visvm:choose=greedy", "greedy, the same end", _values(bench)))
    yield "ViMaR", [arm(bench, f"vimar:weak_quantile={q:g}", f"ViMaR@{q:g}", q) for q in WEAK]
    budget = tokens_of(foresight[0])
    assert budget is not None  # only a plan doesn't know
    yield "best of n", [best_of_equal(bench, budget, bench.profile.search.candidates)]


def _swept(bench: Bench, spec: str, name: str, guides: Sequence[float]) -> Iterator[Arm]:
    for q in QUANTILES:
        end = float(np.quantile(guides, q))
        yield arm(bench, extended(spec, f"end_value={end:.6g}"), f"{name}@{q:g}", q)


def _values(bench: Bench) -> list[float]:
    return [row.value for row in lake.read_rows(Value, bench.value.values)]


def ratios_of(measured: Arm) -> dict[str, Ratio]:
    """CHAIR's metrics over the captions of an arm, in the order of their items."""
    table: dict[str, dict[str, float]] = {}
    for row in lake.read_rows(Score, measured.scores.scores):
        table.setdefault(row.item_id, {})[row.metric] = row.value
    return chair_ratios([ChairItem(*(int(table[item][name]) for name in COUNTS)) for item in sorted(table)])


def point_of(measured: Arm, row: dict[str, Ratio], draws: np.ndarray) -> dict[str, Any]:
    """A point of a curve: metrics with their intervals, the swept number, tokens decoded per caption."""
    figures = {name: estimate(row[name], draws=draws) for name in METRICS}
    return {
        "name": measured.name,
        "x": measured.x,
        "tokens": tokens_of(measured),
        **{name: [figure.value, figure.ci_low, figure.ci_high] for name, figure in figures.items()},
    }


def matched(recalls: Sequence[float], floor: float) -> int:
    """The last point of a curve whose Recall reaches `floor`; where none does, the one of the largest Recall."""
    reaching = [index for index, recall in enumerate(recalls) if recall >= floor]
    return reaching[-1] if reaching else int(np.argmax(recalls))


def difference(a: dict[str, Ratio], b: dict[str, Ratio], draws: np.ndarray) -> dict[str, float]:
    """CHAIRi of a - b on the same captions: the difference, its interval, and its standard error over captions."""
    paired = paired_difference(a["chair_i"], b["chair_i"], draws=draws)
    error = float((resample(a["chair_i"], draws) - resample(b["chair_i"], draws)).std(ddof=1))
    return {"diff": paired.diff, "ci_low": paired.ci_low, "ci_high": paired.ci_high, "error": error}


def inputs_of(cell: Cell, scenes: int, overrides: Sequence[str]) -> str:
    """A digest of all that a cell's figures depend on, but for the code: its profile, its models and the grid's own numbers."""
    profile = profile_of(cell, scenes, overrides)
    digest = sha256(profile.model_dump_json(exclude={"description", "runtime", "policy", "scorer"}).encode())
    digest.update(repr((QUANTILES, WEAK, TOLERANCE, RESAMPLES)).encode())
    for name in (WORLDS[cell.world], cell.scorer):
        for file in sorted((models_of(cell.seed) / name).glob("*.safetensors")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def run(cells: Sequence[Cell], folder: Path, scenes: int, overrides: Sequence[str]) -> None:
    """Measure the cells that are not there yet, each into its file in `folder`."""
    for number, cell in enumerate(cells, 1):
        path = folder / f"{cell.name.replace('/', '-')}.json"
        inputs = inputs_of(cell, scenes, overrides)
        if not path.exists() or json.loads(path.read_text(encoding="utf-8")).get("inputs") != inputs:
            done = {**measure(cell, scenes, overrides), "inputs": inputs}
            path.with_suffix(".part").write_text(json.dumps(done), encoding="utf-8")
            path.with_suffix(".part").rename(path)
        print(f"{number} of {len(cells)}: {cell.name}, {json.loads(path.read_text())['seconds']:.0f} s", flush=True)


def main() -> None:
    """Measure the grid, or a part of it, and write what is there."""
    parser = options_parser(__doc__, "claim", scenes=200)
    parser.add_argument("--worlds", nargs="+", choices=WORLDS, default=list(WORLDS))
    parser.add_argument("--scorers", nargs="+", choices=SCORERS, default=list(SCORERS))
    options = parser.parse_args()
    folder = objects.home() / "claim" / f"{options.scenes}"
    folder.mkdir(parents=True, exist_ok=True)
    cells = [Cell(*parts) for parts in product(options.worlds, options.scorers, options.seeds)]
    run(
        sorted(cells, key=lambda cell: (cell.seed, SCORERS.index(cell.scorer))),
        folder,
        options.scenes,
        options.overrides,
    )
    results = {
        "settings": [*SETTINGS, *options.overrides],
        "scenes": options.scenes,
        "cells": {(cell := json.loads(path.read_text()))["cell"]: cell for path in sorted(folder.glob("*.json"))},
    }
    write_page(options.out, results)


if __name__ == "__main__":
    main()
