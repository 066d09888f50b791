"""Runs experiments on the demo and writes what they found into docs/experiments.md.

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
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flows.experiments.catalogue import QUESTIONS, find
from storage.schema import Finding
from tasks.analysis.findings import Findings
from tasks.report.experiment import svg, table
from tasks.report.pages import markdown_lines

CHECKOUT = Path(__file__).resolve().parent.parent
RESULTS = CHECKOUT / "benchmarks" / "results" / "experiments"
PAGE = CHECKOUT / "docs" / "experiments.md"
PLOTS = CHECKOUT / "docs" / "experiments"


def run_seeds(name: str, seeds: Sequence[int], scenes: int, overrides: Sequence[str]) -> dict[str, Any]:
    """The findings of every seed, as they are kept."""
    from flows.experiments.running import recorded
    from flows.profiles.loading import load_profile

    rows: list[Finding] = []
    arms: list[str] = []
    began = time.perf_counter()
    for seed in seeds:
        profile = load_profile("demo", [f"seed={seed}", f"evaluate.images={scenes}", *overrides])
        _, found, report = recorded(name, profile)
        rows += found.rows
        arms = list(dict.fromkeys([*arms, *found.arms]))
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


def keep(kept: dict[str, Any], results: Path) -> None:
    """Write results as JSON, and the rows alone as CSV."""
    results.mkdir(parents=True, exist_ok=True)
    name = kept["experiment"]
    (results / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    with (results / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in dataclasses.fields(Finding)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept["rows"])


def load(name: str, results: Path) -> tuple[Findings, dict[str, Any]] | None:
    """The findings of all seeds, and what else is kept; None if it wasn't run."""
    path = results / f"{name}.json"
    if not path.is_file():
        return None
    kept = json.loads(path.read_text(encoding="utf-8"))
    return Findings([Finding(**row) for row in kept["rows"]], kept["arms"]), kept


def block(name: str, results: Path) -> str:
    """What the document says of one experiment."""
    loaded = load(name, results)
    if loaded is None:
        return f"*Not measured yet: `python -m benchmarks.experiments {name}` writes these figures.*"
    found, kept = loaded
    one = find(name)
    several = len(kept["seeds"]) > 1
    spread = "means over seeds, in brackets the lowest and the highest" if several else "95 % bootstrap intervals"
    sure = (
        "surely: the paired interval of every seed leaves out zero"
        if several
        else "surely: its interval leaves out zero"
    )
    seeds = ", ".join(map(str, kept["seeds"]))
    note = f"Demo profile, {kept['scenes']} held-out scenes, seeds {seeds}; {spread}; {sure}."
    figures = markdown_lines(*table(found, one.columns))
    return "\n\n".join([one.answer(found), f"![{QUESTIONS[name]}](experiments/{name}.svg)", figures, note])


def filled(text: str, results: Path) -> str:
    """The document with its blocks as the results are now.

    Raises:
        ValueError: an experiment's marks are missing, or stand twice.
    """
    for name in QUESTIONS:
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        pieces = re.split(f"{begin}.*?{end}", text, flags=re.S)
        if len(pieces) != 2:
            raise ValueError(f"the document has {len(pieces) - 1} blocks {begin} ... {end}; one is needed")
        text = f"{begin}\n{block(name, results)}\n{end}".join(pieces)
    return text


def fill(names: Sequence[str]) -> None:
    """The document, and the plots of these experiments."""
    PLOTS.mkdir(parents=True, exist_ok=True)
    for name in names:
        loaded = load(name, RESULTS)
        if loaded is not None:
            (PLOTS / f"{name}.svg").write_bytes(svg(loaded[0], find(name).plot))
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), RESULTS), encoding="utf-8")


def main() -> None:
    """Run what is named, keep it, and fill the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="all if left out")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--fill", action="store_true", help="run nothing")
    options = parser.parse_args()
    names = options.names or list(QUESTIONS)
    os.environ.setdefault("VISLOOP_HOME", "artifacts")
    for name in [] if options.fill else names:
        keep(run_seeds(name, options.seeds, options.scenes, options.overrides), RESULTS)
        fill([name])
    fill(names)


if __name__ == "__main__":
    main()
