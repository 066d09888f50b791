"""The report: one self-contained HTML page a run, and one Markdown summary a round for Prefect's artifacts.

Reads tables through the catalog only, so it can be made again for any run at any time; it changes no result and is
part of no cache key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from storage import catalog, records, runs
from tasks.core.benchmarks.chair import METRICS
from tasks.core.metrics import spearman
from tasks.report import figures
from tasks.report import views as report_views
from tasks.report.pages import inline_svg, render, write_whole
from tasks.report.rounds import (
    BENCHMARKS,
    BETTER,
    MEANING,
    NOTES,
    TITLES,
    RoundRow,
    markdown_table,
    metrics_of,
    round_rows,
)

__all__ = [
    "METRICS",
    "NOTES",
    "TITLES",
    "RoundRow",
    "metrics_of",
    "round_summary_markdown",
    "run_rows",
    "stage_lines_of",
    "write_report",
]

GRID_IMAGES = 12
SHOWN_ROUNDS = 4  # plots of more rounds than this: the first and the last ones
TEMPLATE = "report.html.jinja"

Record = Mapping[str, Any]

# An artifact that several rounds share shows once for each: hence the grouping.
PICTURES = """
    select s.sample_id, any_value(s.image_id) as image_id, any_value(s.prompt) as prompt,
           any_value(i.image.bytes) as data, any_value(a.objects) as objects
    from (select * from samples where {mine} and sample_id in ({ids})) s
    left join (select * from images where {mine}) i using (image_id)
    left join (select * from annotations where {mine}) a using (image_id)
    group by s.sample_id order by s.sample_id
"""
QUARANTINE = """
    select stage, reason, count(distinct item_id) as items, min(item_id) as example, min_by(detail, item_id) as detail
    from quarantine where {mine} group by stage, reason order by stage, reason
"""
VERDICTS = "select round, attempt, reason, count(*) as answers from verdicts where {mine} group by all"


def write_report(run_id: str) -> Path:
    """Write the report of a run into its folder; returns the page's path."""
    return write_whole(runs.run_folder(run_id) / "report.html", render(TEMPLATE, **_content(_Tables(run_id))))


def run_rows(run_id: str) -> list[RoundRow]:
    """The table of rounds of a run."""
    return _rows(_Tables(run_id))


def stage_lines_of(run_id: str) -> list[report_views.StageLine]:
    """The stages of a run, the shards of each together."""
    return report_views.stage_lines(_Tables(run_id).all("stages"))


def round_summary_markdown(run_id: str, round_number: int) -> str:
    """The rounds so far as a Markdown table with a plot, for a Prefect artifact."""
    tables = _Tables(run_id)
    rows = _rows(tables)
    plot = report_views.data_uri(figures.rounds_figure(_panels(rows), "png"), "image/png") if rows else ""
    verdicts = [f"- {row.reason}" for row in rows if row.decision]
    heading = f"# Round {round_number}" if round_number else "# Base"
    note = f"In brackets bootstrap intervals; {NOTES[tables.task]}"
    parts = [heading, markdown_table(rows), note, "\n".join(verdicts), f"![rounds]({plot})" if plot else ""]
    return "\n\n".join(part for part in parts if part)


class _Tables:
    """The tables of one run, through one connection: what it shows is one moment's state."""

    def __init__(self, run_id: str) -> None:
        """Open the catalog."""
        self.run_id = run_id
        self.mine = "run_id = '" + run_id.replace("'", "''") + "'"
        self._connection = catalog.connect()

    def query(self, sql: str) -> list[dict[str, Any]]:
        """Rows as dicts; `{mine}` in the text is the condition that picks this run."""
        columns, rows = catalog.query(sql.replace("{mine}", self.mine), self._connection)
        return [dict(zip(columns, row, strict=True)) for row in rows]

    def all(self, table: str) -> list[dict[str, Any]]:
        """All rows of a table that belong to the run."""
        return self.query(f"select * from {table} where {{mine}}")

    @cached_property
    def profile(self) -> dict[str, Any]:
        """The profile as the run resolved it."""
        found = self.all("runs")
        text = found[0]["config"] if found else runs.load_run(self.run_id).config
        profile: dict[str, Any] = json.loads(text or "{}")
        return profile

    @property
    def task(self) -> str:
        """captions or answers."""
        return str(self.profile.get("task", "captions"))


def _rows(tables: _Tables) -> list[RoundRow]:
    """The table of rounds."""
    benchmark = BENCHMARKS[tables.task]
    return round_rows(tables.all("metrics"), tables.all("comparisons"), tables.all("decisions"), benchmark)


def _content(tables: _Tables) -> dict[str, Any]:
    """Everything the template shows."""
    found = tables.all("runs")
    run = found[0] if found else vars(runs.load_run(tables.run_id))
    profile = tables.profile
    stages, rows = tables.all("stages"), _rows(tables)
    rounds = [_round_plots(tables, number, stages) for number in _trained_rounds(tables)]
    checks = report_views.health_checks(tables.all("metrics"), profile.get("health", {}))
    checks += [
        report_views.value_check(r["round"], r["spearman"], r["spread"], profile.get("value", {}))
        for r in rounds
        if r["spearman"] is not None
    ]
    return {
        "run": run,
        "profile": profile,
        "profile_text": json.dumps(profile, indent=2, ensure_ascii=False),
        "rows": rows,
        "task": tables.task,
        "metrics": [(metric, TITLES[metric], BETTER[metric], MEANING[metric]) for metric in metrics_of(rows)],
        "headline": report_views.headline(rows, run["champion"]),
        "rounds_plot": inline_svg(figures.rounds_figure(_panels(rows)), "the table of rounds as plots") if rows else "",
        "rounds": rounds,
        "checks": checks,
        "grid": _grid(tables, rows),
        "verdicts": report_views.verdict_lines(tables.query(VERDICTS)),
        "stages": report_views.stage_lines(stages),
        "quarantine": tables.query(QUARANTINE),
        "n_items": max((cell.n for row in rows for cell in row.cells.values()), default=0),
        "confidence": profile.get("evaluate", {}).get("confidence", 0.95),
    }


def _round_plots(tables: _Tables, number: int, stages: Sequence[Record]) -> dict[str, Any]:
    """Rewards and values of one round: the two plots and what they say in figures."""
    of_round = f"where {{mine}} and round = {number}"
    # Scores are kept twice: as the scorer gave them, and with the margin; the group by makes one row of both.
    keys = "group by rollout_id, step order by rollout_id, step"
    rewards = tables.query(f"select any_value(score) as score, max(shaped) as shaped from rewards {of_round} {keys}")
    values = tables.query(
        f"select any_value(value) as value, any_value(mc_return) as mc_return from values {of_round} {keys}"
    )
    tau = _fact([row for row in stages if row["round"] == number], "tau")
    tau = report_views.margin_of(rewards) if tau is None else tau
    predicted = np.array([row["value"] for row in values], float)
    followed = np.array([row["mc_return"] for row in values], float)
    rank = spearman(predicted, followed) if len(values) > 1 else None
    scores = [row["score"] for row in rewards if row["score"] is not None]
    return {
        "round": number,
        "unscored": len(rewards) - len(scores),
        "spearman": rank,
        "spread": float(predicted.std()) if len(values) else 0.0,
        "rewards": inline_svg(figures.reward_figure(scores, tau), "histogram of scores") if scores else "",
        "values": inline_svg(figures.value_figure(predicted, followed, rank), "values against returns")
        if rank is not None
        else "",
    }


def _fact(stages: Sequence[Record], name: str) -> float | None:
    """A number that one of these stages decided, as the cache remembers it; None if none did, or no longer."""
    for row in stages:
        record, _ = records.recall(row["stage"], row["key"])
        value = record.output.facts.get(name) if record else None
        if isinstance(value, int | float):
            return float(value)
    return None


def _trained_rounds(tables: _Tables) -> list[int]:
    """Rounds that have rewards; of many, the first and the last."""
    found = tables.query("select distinct round from rewards where {mine} and shaped is not null order by round")
    numbers = [row["round"] for row in found]
    return numbers if len(numbers) <= SHOWN_ROUNDS else [numbers[0], *numbers[1 - SHOWN_ROUNDS :]]


def _panels(rows: Sequence[RoundRow]) -> list[figures.Panel]:
    """The table of rounds as plots: greedy decoding over the rounds, and search beside it."""
    subjects = list(dict.fromkeys(row.subject for row in rows))
    decodings = list(dict.fromkeys(row.decoding for row in rows))
    panels = []
    for metric in metrics_of(rows):
        lines = []
        for decoding in decodings:
            found = [row for row in rows if row.decoding == decoding and metric in row.cells]
            if found:
                cells = [row.cells[metric] for row in found]
                columns = ([c.value for c in cells], [c.low for c in cells], [c.high for c in cells])
                name = {"greedy": "greedy", "staged": "told to stage"}.get(decoding, f"search ({decoding})")
                lines.append(figures.Line(name, [subjects.index(row.subject) for row in found], *columns))
        arrow = {"lower": " ↓", "higher": " ↑", "": ""}[BETTER[metric]]
        panels.append(figures.Panel(TITLES[metric] + arrow, [s.replace("-", " ") for s in subjects], lines))
    return panels


def _grid(tables: _Tables, rows: Sequence[RoundRow]) -> list[dict[str, Any]]:
    """A dozen benchmark items with what every subject said. Taken by id, which is a digest: not picked by result."""
    answers = tables.task == "answers"
    where = "{mine} and benchmark = 'chair' and metric = 'mentioned'"
    if answers:
        where = "{mine} and benchmark = 'vqa' and metric = 'right'"
    found = tables.query(f"select distinct item_id from scores where {where} order by item_id limit {GRID_IMAGES}")
    ids = ", ".join("'" + row["item_id"].replace("'", "''") + "'" for row in found) or "null"
    scores = tables.query(
        f"select subject, decoding, item_id, value, detail from scores where {where} and item_id in ({ids})"
    )
    order, labels = [(row.subject, row.decoding) for row in rows], [row.label for row in rows]
    views = report_views.answers_of if answers else report_views.captions_of
    cards = []
    for picture in tables.query(PICTURES.replace("{ids}", ids)):
        mine = [row for row in scores if row["item_id"] == picture["sample_id"]]
        said = views(mine, order, labels)
        cards.append(
            {
                "picture": report_views.thumbnail(picture["data"]),
                "prompt": picture["prompt"],
                "image_id": picture["image_id"],
                "objects": picture["objects"] or [],
                "answer": json.loads(mine[0]["detail"])["answer"] if answers else "",
                "captions": [one._replace(html=Markup(one.html)) for one in said],
            }
        )
    return cards
