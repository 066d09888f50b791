"""Runs experiments on the demo and writes their findings into docs/experiments.md.

    python -m benchmarks.experiments gamma-sweep cost     these; all of them if none is named
    python -m benchmarks.experiments --fill               only the document and its plots, from the results that are there

For each: every seed's findings in benchmarks/results/experiments/NAME.json and .csv, the plot in docs/experiments/NAME.svg,
and the block between the marks of that name in docs/experiments.md. So no figure there is typed by hand; a test compares
the two. Three seeds of all twelve take about three hours on one core.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measured import RESULTS as ALL_RESULTS
from benchmarks.measured import fill_blocks, on_scenes
from flows.experiments.catalogue import QUESTIONS, find
from flows.experiments.running import recorded
from storage.schema import Finding
from tasks.analysis.findings import Findings
from tasks.report.experiment import svg, table
from tasks.report.pages import markdown_lines

CHECKOUT = Path(__file__).resolve().parent.parent
RESULTS = ALL_RESULTS / "experiments"
PAGE = CHECKOUT / "docs" / "experiments.md"
PLOTS = CHECKOUT / "docs" / "experiments"


def run_seeds(name: str, seeds: Sequence[int], scenes: int, overrides: Sequence[str]) -> dict[str, Any]:
    """The findings of every seed, as the results file holds them."""
    rows: list[Finding] = []
    arms: list[str] = []
    began = time.perf_counter()
    for seed in seeds:
        _, findings, report = recorded(name, on_scenes("demo", seed, scenes, overrides))
        rows += findings.rows
        arms = list(dict.fromkeys([*arms, *findings.arms]))
        print(f"{name}, seed {seed}: {report.paragraph}\n", flush=True)
    return {
        "experiment": name,
        "seeds": list(seeds),
        "scenes": scenes,
        "overrides": list(overrides),
        "seconds": round(time.perf_counter() - began, 1),
        "arms": arms,
        "rows": [dataclasses.asdict(row) for row in rows],
    }


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
    spread, which = (
        ("means over seeds, in brackets the lowest and the highest", "the paired interval of every seed")
        if len(results["seeds"]) > 1
        else ("95 % bootstrap intervals", "its interval")
    )
    seeds = ", ".join(map(str, results["seeds"]))
    note = (
        f"Demo profile, {results['scenes']} held-out scenes, seeds {seeds}; {spread}; surely: {which} leaves out zero."
    )
    figures = markdown_lines(*table(findings, experiment.columns))
    return "\n\n".join([experiment.answer(findings), f"![{QUESTIONS[name]}](experiments/{name}.svg)", figures, note])


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
        if loaded is not None:
            (PLOTS / f"{name}.svg").write_bytes(svg(loaded[0], find(name).plot))
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), RESULTS), encoding="utf-8")


def main() -> None:
    """Run what is named, write its results, and fill the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="all if left out")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--fill", action="store_true", help="run nothing")
    options = parser.parse_args()
    names = options.names or list(QUESTIONS)
    for name in [] if options.fill else names:
        write(run_seeds(name, options.seeds, options.scenes, options.overrides), RESULTS)
        fill([name])
    fill(names)


if __name__ == "__main__":
    main()
