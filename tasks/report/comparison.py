"""The comparison's page and table: what each strategy reached, at which work. Reads tables through the catalog only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from storage import catalog, runs
from tasks.configs.search import SearchConfig, search_config
from tasks.core.benchmarks.chair import METRICS
from tasks.report.comparison_figures import budget_figure, work_figure
from tasks.report.comparison_points import Point, at_equal_work, front, points, token_budget, widened
from tasks.report.pages import inline_svg, render, write_whole
from tasks.report.rounds import TITLES

__all__ = [
    "METRICS",
    "PAGE",
    "TITLES",
    "Comparison",
    "Contender",
    "Point",
    "compared",
    "contenders",
    "write_comparison",
]

TEMPLATE = "comparison.html.jinja"
PAGE = "comparison.html"
# What is read beside the tokens that are decoded, in the table of all points.
WORK = {"prefill_tokens": "prefill tokens", "value_tokens": "value tokens", "texts_embedded": "texts scored"}


class Contender(NamedTuple):
    """One search of a comparison."""

    name: str  # its spec and width: visvm@6
    config: SearchConfig


class Comparison(NamedTuple):
    """What a comparison found."""

    points: list[Point]
    budget: float  # tokens a caption
    equal: list[Point]  # one a spec, at equal work
    best: dict[str, set[str]]  # metric -> names on its Pareto front over tokens

    def on_fronts(self, name: str) -> str:
        """Which fronts a point is on, for people."""
        return ", ".join(TITLES[metric].removesuffix(" %") for metric, names in self.best.items() if name in names)


def contenders(base: SearchConfig, specs: Sequence[str], widths: Sequence[int]) -> list[Contender]:
    """Every spec at every width it can have; greedy first, whether it is named or not: all are compared with it.

    Raises:
        ValueError: for what is no spec, or a setting out of its bounds.
    """
    found = {"greedy": Contender("greedy", search_config(base, "greedy"))}
    for spec in dict.fromkeys(specs):
        for name, widest, _ in widened(spec, widths):
            found.setdefault(name, Contender(name, search_config(base, widest)))
    return list(found.values())


def compared(run_id: str, tokens: float | None = None) -> Comparison:
    """The points of a comparison's run; `tokens` a caption is the budget, the profile's own search if left out."""
    connection = catalog.connect()
    mine = "run_id = '" + run_id.replace("'", "''") + "'"

    def rows(table: str, more: str = "") -> list[dict[str, Any]]:
        columns, found = catalog.query(f"select * from {table} where {mine} {more}", connection)
        return [dict(zip(columns, row, strict=True)) for row in found]

    searches = rows("stages", "and stage = 'search' order by started_at")
    names = list(dict.fromkeys(row["label"] for row in searches))
    found = points(rows("metrics"), rows("comparisons"), searches, names)
    if not found:
        return Comparison([], 0.0, [], {})
    profile = json.loads(runs.load_run(run_id).config)["search"]
    budget = tokens or token_budget(found, "visvm", profile["candidates"])
    best = {metric: front(found, metric) for metric in ("chair_i", "recall")}
    return Comparison(found, budget, at_equal_work(found, budget), best)


def write_comparison(run_id: str, tokens: float | None = None) -> Path:
    """Write a comparison's page into its run's folder; returns the page's path."""
    run, found = runs.load_run(run_id), compared(run_id, tokens)
    profile = json.loads(run.config)
    page = render(
        TEMPLATE,
        run=run,
        found=found,
        images=max((point.cells["chair_s"].n for point in found.points), default=0),
        profile=profile,
        metrics=[(metric, TITLES[metric]) for metric in METRICS],
        work=WORK,
        elsewhere=sum(point.cached for point in found.points),
        plots={
            work: inline_svg(work_figure(found.points, work), f"CHAIRi and Recall against {work} a caption")
            for work in ("tokens", "seconds")
        },
        curve=inline_svg(budget_figure(found.points), "CHAIRi and Recall over the number of candidates"),
    )
    return write_whole(runs.run_folder(run_id) / PAGE, page)
