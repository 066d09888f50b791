"""What the report shows beside plots and captions, as lines for a template: rows of the catalog in, tuples and dicts out.

Pure: it reads nothing and renders nothing.
"""

from __future__ import annotations

import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from PIL import Image, UnidentifiedImageError

from storage.schema import Value
from tasks.core.metrics import spearman
from tasks.core.value.ranking import held_out, ranking_of
from tasks.report.pages import inline_jpeg
from tasks.report.rounds import COLUMNS, RoundRow, metrics_of

Record = Mapping[str, Any]
THUMBNAIL = 320  # pixels of the longer side
MERGING = "gather"  # the stage that joins the tables of shards
# What is checked: metric, its name for people, and the profile's lower and upper bounds.
HEALTH = (
    ("scorer_auc", "scorer separates true from hallucinated sentences of one image (AUC)", "min_scorer_auc", None),
    ("chair_i", "base hallucinates, but not too much (CHAIRi, greedy)", "min_chair_i", "max_chair_i"),
    ("recall", "base mentions what is there (Recall, greedy)", "min_recall", None),
)


class Check(NamedTuple):
    """One health check: what was measured against which bound."""

    name: str
    text: str
    passed: bool


class StageLine(NamedTuple):
    """One stage of one round, its shards together."""

    round: int
    stage: str
    label: str
    seconds: float
    rows: int
    calls: int
    cached: int
    counters: dict[str, float]


def stage_lines(stages: Iterable[Record]) -> list[StageLine]:
    """Stages in the order they began; shards of one stage are one line, and merging them is left out."""
    groups: dict[tuple[int, str, str], list[Record]] = {}
    for row in sorted(
        (row for row in stages if row["stage"] != MERGING), key=lambda row: (row["round"], row["started_at"])
    ):
        groups.setdefault((row["round"], row["stage"], row["label"]), []).append(row)
    lines = []
    for (number, stage, label), rows in groups.items():
        counters: Counter[str] = Counter()
        for row in rows:
            counters.update(json.loads(row["counters"] or "{}"))
        lines.append(
            StageLine(
                number,
                stage,
                label,
                sum(row["seconds"] for row in rows),
                sum(row["rows"] for row in rows),
                len(rows),
                sum(row["cached"] for row in rows),
                dict(counters),
            )
        )
    return lines


def health_checks(metrics: Sequence[Record], bounds: Mapping[str, Any]) -> list[Check]:
    """The scorer and the base model against the profile's bounds; what was not measured is left out."""
    measured = {row["metric"]: row["value"] for row in metrics if row["benchmark"] == "health"}
    for row in metrics:
        if row["benchmark"] == "chair" and row["subject"] == "base" and row["decoding"] == "greedy":
            measured.setdefault(row["metric"], row["value"])
    checks = []
    for metric, name, least, most in HEALTH:
        if metric not in measured:
            continue
        value, low = measured[metric], bounds.get(least, -math.inf)
        high = bounds.get(most, math.inf) if most else math.inf
        wanted = f"{low:g} to {high:g}" if most else f"at least {low:g}"
        checks.append(Check(name, f"{value:.3f}, wanted {wanted}", low <= value <= high))
    return checks


def value_check(number: int, values: Sequence[Value], bounds: Mapping[str, Any]) -> Check:
    """Whether a round's value model orders what a search compares: the sentences of a held-out image at a position."""
    least, width = bounds.get("min_spearman", -1.0), bounds.get("min_spread", 0.0)
    held = held_out(values)
    ranking, spread = ranking_of(held), float(held.values.std())
    rank, share = (f"{e.value:.2f} ({e.ci_low:.2f} to {e.ci_high:.2f})" for e in (ranking.rank, ranking.auc))
    wanted = "not checked" if least <= -1 else f"its interval wanted above {least:g}"
    text = (
        f"rank correlation {rank}, {wanted}; AUC {share}, {ranking.pairs} pairs; over all sentences "
        f"{spearman(held.values, held.returns):.2f}; spread {spread:.3g}, wanted at least {width:g}"
    )
    name = f"value model of round {number} ranks the held-out sentences of an image at a position"
    return Check(name, text, spread >= width and (least <= -1 or ranking.rank.ci_low > least))


def margin_of(rewards: Sequence[Record]) -> float | None:
    """Where the margin must lie, between the scores that were penalized and those that were not; None if none was."""
    scored = [row for row in rewards if row["score"] is not None and row["shaped"] is not None]
    penalized = [row["score"] for row in scored if abs(row["shaped"] - row["score"]) > 1e-9]
    others = [row["score"] for row in scored if abs(row["shaped"] - row["score"]) <= 1e-9]
    if not penalized or not others or max(penalized) > min(others):
        return None
    return (max(penalized) + min(others)) / 2


def verdict_lines(verdicts: Iterable[Record]) -> list[dict[str, Any]]:
    """The gate's verdicts, a line a round and attempt: how many were looked at, how many accepted, and why not."""
    groups: dict[tuple[int, int], Counter[str]] = {}
    for row in verdicts:
        groups.setdefault((row["round"], row["attempt"]), Counter())[row["reason"]] += row["answers"]
    return [
        {
            "round": number,
            "attempt": attempt + 1,
            "answers": reasons.total(),
            "accepted": reasons["accepted"],
            "refused": [(reason, count) for reason, count in reasons.most_common() if reason != "accepted"],
        }
        for (number, attempt), reasons in sorted(groups.items())
    ]


def thumbnail(data: bytes | None) -> str:
    """A data URI of the picture, small; empty if it cannot be read."""
    if not data:
        return ""
    try:
        with Image.open(io.BytesIO(data)) as opened:
            picture = opened.convert("RGB")
    except (UnidentifiedImageError, OSError, ValueError):
        return ""
    return inline_jpeg(picture, THUMBNAIL, quality=82)[0]


def headline(rows: Sequence[RoundRow], champion: str) -> list[dict[str, str]]:
    """The run in a few figures: the champion's greedy decoding beside the base's."""
    base = next((row for row in rows if (row.subject, row.decoding) == ("base", "greedy")), None)
    best = next((row for row in rows if (row.subject, row.decoding) == (champion, "greedy")), None)
    if base is None or best is None:
        return []
    figures = []
    for metric in metrics_of(rows):
        if metric not in base.cells or metric not in best.cells:
            continue
        before, after = base.cells[metric], best.cells[metric]
        column = COLUMNS[metric]
        gain = (after.value - before.value) * {"lower": -1, "higher": 1, "": 0}[column.better]
        figures.append(
            {
                "title": column.title.removesuffix(" %"),
                "unit": "%" if column.title.endswith("%") else "words",
                "before": before.text,
                "after": after.text,
                "change": _change(metric, before.value, after.value) if best is not base else "",
                "tone": "good" if gain > 0 else "bad" if gain < 0 else "",
            }
        )
    return figures


def _change(metric: str, before: float, after: float) -> str:
    """How far a metric moved: relative for rates of error, in its own unit for the others."""
    if metric.startswith("chair") and before:
        return f"{(after - before) / before:+.0%}"
    return f"{after - before:+.1f}" + (" points" if metric != "length" else "")
