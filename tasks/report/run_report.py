"""The report: one self-contained HTML page a run, and one Markdown summary a round for Prefect's artifacts.

Reads tables through the catalog only, so it can be made again for any run at any time; it changes no result and is
part of no cache key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from storage import lake, records, runs
from storage.artifacts import Table, reference
from storage.schema import Value
from tasks.core.metrics import spearman
from tasks.report import views
from tasks.report.marked_text import answers_of, captions_of
from tasks.report.pages import data_uri, inline_svg, render, write_whole
from tasks.report.rounds import BENCHMARKS, COLUMNS, NOTES, RoundRow, markdown_table, metrics_of, round_rows
from tasks.report.run_figures import Line, Panel, reward_figure, rounds_figure, value_figure
from tasks.report.tables import RunTables

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
    return write_whole(runs.run_folder(run_id) / "report.html", render(TEMPLATE, **_content(RunTables(run_id))))


def run_rows(run_id: str) -> list[RoundRow]:
    """The table of rounds of a run."""
    return _rows(RunTables(run_id))


def stage_lines_of(run_id: str) -> list[views.StageLine]:
    """The stages of a run, the shards of each together."""
    return views.stage_lines(RunTables(run_id).all("stages"))


def round_summary_markdown(run_id: str, round_number: int) -> str:
    """The rounds so far as a Markdown table with a plot, for a Prefect artifact."""
    tables = RunTables(run_id)
    rows = _rows(tables)
    plot = data_uri(rounds_figure(_panels(rows), "png"), "image/png") if rows else ""
    verdicts = [f"- {row.reason}" for row in rows if row.decision]
    heading = f"# Round {round_number}" if round_number else "# Base"
    note = f"In brackets bootstrap intervals; {NOTES[tables.task]}"
    parts = [heading, markdown_table(rows), note, "\n".join(verdicts), f"![rounds]({plot})" if plot else ""]
    return "\n\n".join(part for part in parts if part)


def _rows(tables: RunTables) -> list[RoundRow]:
    """The table of rounds."""
    benchmark = BENCHMARKS[tables.task]
    return round_rows(tables.all("metrics"), tables.all("comparisons"), tables.all("decisions"), benchmark)


def _content(tables: RunTables) -> dict[str, Any]:
    """Everything the template shows."""
    run, profile = tables.run, tables.profile
    stages, rows = tables.all("stages"), _rows(tables)
    rounds = [_round_plots(tables, number, stages) for number in _trained_rounds(tables)]
    checks = views.health_checks(tables.all("metrics"), profile.get("health", {}))
    checks += [
        views.value_check(plots["round"], plots["held_out"], profile.get("value", {}))
        for plots in rounds
        if len(plots["held_out"]) > 1
    ]
    return {
        "run": run,
        "profile": profile,
        "profile_text": json.dumps(profile, indent=2, ensure_ascii=False),
        "rows": rows,
        "task": tables.task,
        "columns": {metric: COLUMNS[metric] for metric in metrics_of(rows)},
        "headline": views.headline(rows, run["champion"]),
        "rounds_plot": inline_svg(rounds_figure(_panels(rows)), "the table of rounds as plots") if rows else "",
        "rounds": rounds,
        "checks": checks,
        "grid": _grid(tables, rows),
        "verdicts": views.verdict_lines(tables.query(VERDICTS)),
        "stages": views.stage_lines(stages),
        "quarantine": tables.query(QUARANTINE),
        "n_items": max((cell.n for row in rows for cell in row.cells.values()), default=0),
        "confidence": profile.get("evaluate", {}).get("confidence", 0.95),
    }


def _round_plots(tables: RunTables, number: int, stages: Sequence[Record]) -> dict[str, Any]:
    """Rewards and values of one round: the two plots and their figures."""
    of_round = f"where {{mine}} and round = {number}"
    # Scores are stored twice: as the scorer gave them, and shaped by the margin; the group by makes one row of both.
    keys = "group by rollout_id, step order by rollout_id, step"
    rewards = tables.query(f"select any_value(score) as score, max(shaped) as shaped from rewards {of_round} {keys}")
    of_this = [row for row in stages if row["round"] == number]
    values = _values(of_this)
    margin = _fact(of_this, "margin")
    margin = views.margin_of(rewards) if margin is None else margin
    predicted = np.array([row.value for row in values], float)
    followed = np.array([row.mc_return for row in values], float)
    rank = spearman(predicted, followed) if len(values) > 1 else None
    scores = [row["score"] for row in rewards if row["score"] is not None]
    return {
        "round": number,
        "unscored": len(rewards) - len(scores),
        "held_out": values,
        "rewards": inline_svg(reward_figure(scores, margin), "histogram of scores") if scores else "",
        "values": inline_svg(value_figure(predicted, followed, rank), "values against returns")
        if rank is not None
        else "",
    }


def _values(stages: Sequence[Record]) -> list[Value]:
    """Held-out sentences of the V that guided; a round may have others, which have a label: controls, or guided rounds."""
    own = [row for row in stages if row["stage"] == "train_value" and not row["label"]]
    refs = [json.loads(row["outputs"]).get(Value.table) for row in own]
    table = reference(refs[-1]) if refs and refs[-1] else None
    if not isinstance(table, Table) or table.schema_version != Value.version or not table.path.exists():
        return []
    return lake.read_rows(Value, table)


def _fact(stages: Sequence[Record], name: str) -> float | None:
    """A number that one of these stages decided, from the cache; None if none did, or it is no longer there."""
    for row in stages:
        record, _ = records.load(row["stage"], row["key"])
        value = record.output.facts.get(name) if record else None
        if isinstance(value, int | float):
            return float(value)
    return None


def _trained_rounds(tables: RunTables) -> list[int]:
    """Rounds that have rewards; of many, the first and the last."""
    rows = tables.query("select distinct round from rewards where {mine} and shaped is not null order by round")
    numbers = [row["round"] for row in rows]
    return numbers if len(numbers) <= SHOWN_ROUNDS else [numbers[0], *numbers[1 - SHOWN_ROUNDS :]]


def _panels(rows: Sequence[RoundRow]) -> list[Panel]:
    """The table of rounds as plots: greedy decoding over the rounds, and search beside it. Controls are in the table."""
    rows = [row for row in rows if not row.is_control]
    subjects = list(dict.fromkeys(row.subject for row in rows))
    decodings = list(dict.fromkeys(row.decoding for row in rows))
    panels = []
    for metric in metrics_of(rows):
        lines = []
        for decoding in decodings:
            measured = [row for row in rows if row.decoding == decoding and metric in row.cells]
            if measured:
                cells = [row.cells[metric] for row in measured]
                columns = ([c.value for c in cells], [c.low for c in cells], [c.high for c in cells])
                name = {"greedy": "greedy", "staged": "greedy, in stages"}.get(decoding, f"search ({decoding})")
                lines.append(Line(name, [subjects.index(row.subject) for row in measured], *columns))
        panels.append(Panel(COLUMNS[metric].heading, [s.replace("-", " ") for s in subjects], lines))
    return panels


def _grid(tables: RunTables, rows: Sequence[RoundRow]) -> list[dict[str, Any]]:
    """A dozen benchmark items with every subject's text. Taken by id, which is a digest: not picked by result."""
    answers = tables.task == "answers"
    benchmark, metric = ("vqa", "right") if answers else ("chair", "mentioned")
    where = f"{{mine}} and benchmark = '{benchmark}' and metric = '{metric}'"
    items = tables.query(f"select distinct item_id from scores where {where} order by item_id limit {GRID_IMAGES}")
    ids = ", ".join("'" + row["item_id"].replace("'", "''") + "'" for row in items) or "null"
    scores = tables.query(
        f"select subject, decoding, item_id, value, detail from scores where {where} and item_id in ({ids})"
    )
    shown = [row for row in rows if not row.is_control]
    order, labels = [(row.subject, row.decoding) for row in shown], [row.label for row in shown]
    texts_of = answers_of if answers else captions_of
    cards = []
    for picture in tables.query(PICTURES.replace("{ids}", ids)):
        of_item = [row for row in scores if row["item_id"] == picture["sample_id"]]
        texts = texts_of(of_item, order, labels)
        cards.append(
            {
                "picture": views.thumbnail(picture["data"]),
                "prompt": picture["prompt"],
                "image_id": picture["image_id"],
                "objects": picture["objects"] or [],
                "answer": json.loads(of_item[0]["detail"])["answer"] if answers else "",
                "texts": [text._replace(html=Markup(text.html)) for text in texts],
            }
        )
    return cards
