"""Runs experiments on the demo and writes their findings into docs/experiments.md.

    python -m benchmarks.experiments gamma-sweep cost     these; all of them if none is named
    python -m benchmarks.experiments --fill               only the document and its plots, from the results that are there
    python -m benchmarks.experiments --quick              all of them small, one seed, to check that they run; writes nothing

For each: every seed's findings in benchmarks/results/experiments/NAME.json and .csv, the plot in docs/experiments/NAME.svg,
and the block between the marks of that name in docs/experiments.md. So no figure there is typed by hand; a test compares
the two. The experiments of CLAIM run on three seeds, each a fresh draw of models and scenes, the others on one; the models of
seed 0 are shipped, those of another seed are built by `python -m flows.pretrain_demo --seed N`. A seed is written when it is
done, and is not run again with the same models and settings: a broken run goes on where it stopped. The seconds of all that
is in the results are printed at the end.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measured import RESULTS as ALL_RESULTS
from benchmarks.measured import fill_blocks, on_scenes
from flows.experiments.catalogue import QUESTIONS, find
from flows.experiments.contract import quickened
from flows.experiments.running import recorded
from flows.profiles.loading import Profile
from storage.schema import Finding
from tasks.analysis.findings import Findings
from tasks.demo import built
from tasks.report.experiment import svg, table
from tasks.report.pages import markdown_lines

CHECKOUT = Path(__file__).resolve().parent.parent
RESULTS = ALL_RESULTS / "experiments"
PAGE = CHECKOUT / "docs" / "experiments.md"
PLOTS = CHECKOUT / "docs" / "experiments"
CLAIM = (
    "search-compare",
    "gamma-sweep",
    "self-train",
    "cross-model",
    "value-sanity",
)  # on all of SEEDS; others on the first
SEEDS = (0, 1, 2)
MODELS = ("policy", "policy-cot", "scorer")
WITH_SECOND = ("cross-model", "scale")  # experiments that compare the demo's two policies


def profile_of(seed: int, scenes: int, overrides: Sequence[str]) -> Profile:
    """The demo with a seed's models and scenes.

    Raises:
        SystemExit: its models are not built.
    """
    if not seed:
        return on_scenes("demo", seed, scenes, overrides)
    models = models_of(seed)
    missing = [name for name in MODELS if not (models / name).is_dir()]
    if missing:
        raise SystemExit(f"{models} lacks {', '.join(missing)}: python -m flows.pretrain_demo --seed {seed}")
    own = (
        f"policy.checkpoint={models / 'policy'}",
        f"scorer.checkpoint={models / 'scorer'}",
        f"data.train.seed={seed}",
        f"data.benchmark.seed={seed}",
    )
    return on_scenes("demo", seed, scenes, [*own, *overrides])


def models_of(seed: int) -> Path:
    """The folder of a seed's models."""
    return built.models_of(seed) if seed else CHECKOUT / "deployments" / "demo"


def models_digest(seed: int) -> str:
    """What a seed's models are, by their weights."""
    digest = hashlib.sha256()
    for file in sorted(path for name in MODELS for path in (models_of(seed) / name).glob("*.safetensors")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def given_to(name: str, seed: int) -> list[str]:
    """What --with gives an experiment: on another seed than the shipped one, that seed's second policy."""
    if not seed or name not in WITH_SECOND:
        return []
    second = models_of(seed) / "policy-cot"
    path = second.with_suffix(".yaml")
    path.write_text(f"extends: demo-cot\npolicy:\n  checkpoint: {second}\n", encoding="utf-8")
    return [str(path)]


def run_seeds(name: str, seeds: Sequence[int], scenes: int, overrides: Sequence[str], folder: Path) -> dict[str, Any]:
    """The findings of every seed, as the results file holds them; those that are there with the same models are kept."""
    kept = _kept(name, scenes, overrides, folder)
    rows: list[dict[str, Any]] = list(kept["rows"])
    arms, seconds, results = list(kept["arms"]), dict(kept["seconds_of"]), kept
    for seed in seeds:
        if seed not in seconds:
            began = time.perf_counter()
            _, findings, report = recorded(name, profile_of(seed, scenes, overrides), given=given_to(name, seed))
            seconds[seed] = round(time.perf_counter() - began, 1)
            rows += [dataclasses.asdict(row) for row in findings.rows]
            arms = list(dict.fromkeys([*arms, *findings.arms]))
            print(f"{name}, seed {seed}, {seconds[seed]:.0f} s: {report.paragraph}\n", flush=True)
        results = {
            "experiment": name,
            "seeds": sorted(seconds),
            "scenes": scenes,
            "overrides": list(overrides),
            "seconds": round(sum(seconds.values()), 1),
            "seconds_of": {str(seed): seconds[seed] for seed in sorted(seconds)},
            "models": {str(seed): models_digest(seed) for seed in sorted(seconds)},
            "arms": arms,
            "rows": rows,
        }
        write(results, folder)
    return results


def _kept(name: str, scenes: int, overrides: Sequence[str], folder: Path) -> dict[str, Any]:
    """What an earlier run left of the same number of scenes, settings and models; `seconds_of` by number of the seed."""
    path = folder / f"{name}.json"
    old = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if old.get("scenes") != scenes or old.get("overrides") != list(overrides):
        old = {}
    seconds = {
        int(seed): took
        for seed, took in old.get("seconds_of", {}).items()
        if old["models"][seed] == models_digest(int(seed))
    }
    rows = [row for row in old.get("rows", []) if row["seed"] in seconds]
    return {"rows": rows, "arms": old.get("arms", []) if seconds else [], "seconds_of": seconds}


def write(results: dict[str, Any], folder: Path) -> None:
    """Write results as JSON, and the rows alone as CSV."""
    folder.mkdir(parents=True, exist_ok=True)
    name = results["experiment"]
    (folder / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in dataclasses.fields(Finding)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(results["rows"])


def load(name: str, folder: Path) -> tuple[Findings, dict[str, Any]] | None:
    """The findings of all seeds, and all that the results file holds; None if it wasn't run."""
    path = folder / f"{name}.json"
    if not path.is_file():
        return None
    results = json.loads(path.read_text(encoding="utf-8"))
    return Findings([Finding(**row) for row in results["rows"]], results["arms"]), results


def block(name: str, folder: Path) -> str:
    """The document's block of one experiment."""
    loaded = load(name, folder)
    if loaded is None:
        return f"*Not measured yet: `python -m benchmarks.experiments {name}` writes these figures.*"
    findings, results = loaded
    experiment = find(name)
    several = len(results["seeds"]) > 1
    spread = (
        "means over seeds, 95 % intervals with the seed as a random effect" if several else "95 % bootstrap intervals"
    )
    seeds = f"seed{'s' if several else ''} {', '.join(map(str, results['seeds']))}"
    note = (
        f"Demo profile, {results['scenes']} held-out scenes, {seeds}, {results['seconds'] / 60:.0f} minutes; {spread}; surely: "
        f"after Holm's correction of {len(findings.family)} differences."
    )
    figures = markdown_lines(*table(findings, experiment.columns))
    paragraph = (
        f"*Measured with earlier models of the demo, so no conclusion is drawn; `python -m benchmarks.experiments {name}` "
        "measures again.*"
        if is_stale(results)
        else experiment.answer(findings)
    )
    return "\n\n".join([paragraph, f"![{QUESTIONS[name]}](experiments/{name}.svg)", figures, note])


def is_stale(results: dict[str, Any]) -> bool:
    """Whether the models of seed 0, which are shipped, are not those that were measured."""
    return 0 in results["seeds"] and results.get("models", {}).get("0") != models_digest(0)


def filled(text: str, folder: Path) -> str:
    """The document with its blocks as the results are now.

    Raises:
        ValueError: an experiment's marks are missing, or stand twice.
    """
    return fill_blocks(PAGE.name, text, {name: block(name, folder) for name in QUESTIONS})


def fill(names: Sequence[str]) -> None:
    """The document, and the plots of these experiments."""
    PLOTS.mkdir(parents=True, exist_ok=True)
    for name in names:
        loaded = load(name, RESULTS)
        if loaded is not None and not is_stale(loaded[1]):
            (PLOTS / f"{name}.svg").write_bytes(svg(loaded[0], find(name).plot))
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), RESULTS), encoding="utf-8")


def main() -> None:
    """Run what is named, write its results, and fill the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="all if left out")
    parser.add_argument(
        "--seeds", type=int, nargs="+", help="for all; else three for those of CLAIM and one for the others"
    )
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--fill", action="store_true", help="run nothing")
    parser.add_argument("--quick", action="store_true", help="small numbers, one seed; write nothing")
    options = parser.parse_args()
    names, began = options.names or list(QUESTIONS), time.perf_counter()
    for name in [] if options.fill else names:
        seeds = options.seeds or (SEEDS if name in CLAIM else SEEDS[:1])
        if options.quick:
            profile = quickened(profile_of(seeds[0], options.scenes, options.overrides))
            print(f"{name}: {recorded(name, profile, quick=True)[2].paragraph}\n", flush=True)
            continue
        run_seeds(name, seeds, options.scenes, options.overrides, RESULTS)
        fill([name])
    if not options.quick:
        fill(names)
        print(total_time(names, RESULTS))
    print(f"this run: {(time.perf_counter() - began) / 60:.1f} minutes")


def total_time(names: Sequence[str], folder: Path) -> str:
    """The time that the results of these experiments took, and the longest of them."""
    known = {name: loaded[1] for name in names if (loaded := load(name, folder)) is not None}
    took = {name: results["seconds"] for name, results in known.items() if not is_stale(results)}
    longest = max(took, key=lambda name: took[name], default="")
    return f"{len(took)} of {len(names)} experiments are measured; they took {sum(took.values()) / 60:.1f} minutes" + (
        f", {longest} {took[longest] / 60:.1f} of them" if longest else ""
    )


if __name__ == "__main__":
    main()
