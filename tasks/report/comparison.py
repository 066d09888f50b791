"""The comparison's page and table: what each strategy reached, at which work. Reads tables through the catalog only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from storage import runs
from tasks.configs.search import SearchConfig, search_config
from tasks.core.benchmarks.chair import METRICS
from tasks.report.comparison_figures import budget_figure, work_figure
from tasks.report.comparison_points import Point, at_equal_work, front, points, token_budget, widened
from tasks.report.pages import inline_svg, render, write_whole
from tasks.report.rounds import COLUMNS as ROUND_COLUMNS
from tasks.report.tables import RunTables

TEMPLATE = "comparison.html.jinja"
PAGE = "comparison.html"
COLUMNS = {metric: ROUND_COLUMNS[metric] for metric in METRICS}
# What is read beside the tokens that are decoded, in the table of all points.
WORK = {"prefill_tokens": "prefill tokens", "value_tokens": "value tokens", "texts_embedded": "texts scored"}


class Contender(NamedTuple):
    """One search of a comparison."""

    name: str  # its spec and width: visvm@6
    config: SearchConfig


class Comparison(NamedTuple):
    """What was measured of every search of a comparison."""

    points: list[Point]
    budget: float  # tokens a caption
    equal: list[Point]  # one a spec, at equal work
    best: dict[str, set[str]]  # metric -> names on its Pareto front over tokens

    def on_fronts(self, name: str) -> str:
        """Which fronts a point is on, for people."""
        return ", ".join(
            COLUMNS[metric].title.removesuffix(" %") for metric, names in self.best.items() if name in names
        )


def contenders(base: SearchConfig, specs: Sequence[str], widths: Sequence[int]) -> list[Contender]:
    """Every spec at every width it can have; greedy first, whether it is named or not: all are compared with it.

    Raises:
        ValueError: for what is no spec, or a setting out of its bounds.
    """
    entered = {"greedy": Contender("greedy", search_config(base, "greedy"))}
    for spec in dict.fromkeys(specs):
        for name, widest, _ in widened(spec, widths):
            entered.setdefault(name, Contender(name, search_config(base, widest)))
    return list(entered.values())


def compared(run_id: str, tokens: float | None = None) -> Comparison:
    """The points of a comparison's run; `tokens` a caption is the budget, the profile's own search if left out."""
    tables = RunTables(run_id)
    searches = tables.query("select * from stages where {mine} and stage = 'search' order by started_at")
    names = list(dict.fromkeys(row["label"] for row in searches))
    measured = points(tables.all("metrics"), tables.all("comparisons"), searches, names)
    if not measured:
        return Comparison([], 0.0, [], {})
    budget = tokens or token_budget(measured, "visvm", tables.profile["search"]["candidates"])
    best = {metric: front(measured, metric) for metric in ("chair_i", "recall")}
    return Comparison(measured, budget, at_equal_work(measured, budget), best)


def write_comparison(run_id: str, tokens: float | None = None) -> Path:
    """Write a comparison's page into its run's folder; returns the page's path."""
    tables, comparison = RunTables(run_id), compared(run_id, tokens)
    page = render(
        TEMPLATE,
        run=tables.run,
        comparison=comparison,
        images=max((point.cells["chair_s"].n for point in comparison.points), default=0),
        profile=tables.profile,
        columns=COLUMNS,
        work=WORK,
        cached=sum(point.cached for point in comparison.points),
        plots={
            work: inline_svg(work_figure(comparison.points, work), f"CHAIRi and Recall against {work} a caption")
            for work in ("tokens", "seconds")
        },
        curve=inline_svg(budget_figure(comparison.points), "CHAIRi and Recall over the number of candidates"),
    )
    return write_whole(runs.run_folder(run_id) / PAGE, page)
