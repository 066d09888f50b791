"""Fills the README's marked blocks from benchmarks/results: `python -m benchmarks.readme`.

    <!-- results:begin --> ... <!-- results:end -->      the tables of results/*.json, in the order of their names
    <!-- demo-run:begin --> ... <!-- demo-run:end -->    results/demo-run.txt, as printed

A results file takes part if it has a "table": {"title": str, "columns": [str], "rows": [[str]], "notes": [str]};
whatever else it holds is its own business. So no figure in the README is typed by hand, and a test compares them.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent
README = CHECKOUT / "README.md"
RESULTS = CHECKOUT / "benchmarks" / "results"
NOTHING = "*Not measured yet: `python -m benchmarks.demo` writes these figures.*"


def markdown(table: dict[str, Any]) -> str:
    """One table with its title and notes; the first column is text, the others are figures."""
    columns = table["columns"]
    lines = [f"| {' | '.join(columns)} |", "|---|" + "--:|" * (len(columns) - 1)]
    for row in table["rows"]:
        if len(row) != len(columns):
            raise ValueError(f"{table['title']!r}: a row of {len(row)} cells under {len(columns)} columns: {row}")
        lines.append(f"| {' | '.join(row)} |")
    return "\n\n".join([f"**{table['title']}**", "\n".join(lines), *table.get("notes", [])])


def results_block(results: Path) -> str:
    """All tables of the results files."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("*.json"))]
    return "\n\n".join(markdown(one["table"]) for one in found if "table" in one) or NOTHING


def demo_block(results: Path) -> str:
    """What a run printed at its end."""
    path = results / "demo-run.txt"
    return f"```text\n{path.read_text(encoding='utf-8').rstrip()}\n```" if path.is_file() else NOTHING


def filled(text: str, results: Path) -> str:
    """The README's text with its blocks as the results are now.

    Raises:
        ValueError: if a block's marks are missing.
    """
    for name, block in (("results", results_block(results)), ("demo-run", demo_block(results))):
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        text, count = re.subn(f"{begin}.*?{end}", lambda _, b=begin, t=block, e=end: f"{b}\n{t}\n{e}", text, flags=re.S)
        if count != 1:
            raise ValueError(f"the README has {count} blocks {begin} ... {end}; one is needed")
    return text


def main() -> None:
    """Fill the README, or with --check only say whether it is filled."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if something would change")
    before = README.read_text(encoding="utf-8")
    after = filled(before, RESULTS)
    if parser.parse_args().check:
        sys.exit("README.md differs from benchmarks/results: run python -m benchmarks.readme" if before != after else 0)
    README.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main()
