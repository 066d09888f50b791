"""What the report shows, as plain lines for a template: records of the catalog in, dataclass-free dicts and tuples out.

Pure: it reads nothing and renders nothing.
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from PIL import Image, UnidentifiedImageError

from tasks.core.search.stages import STAGES
from tasks.core.staged.answers import stages_of
from tasks.report.marked_caption import marked_html
from tasks.report.rounds import BETTER, TITLES, RoundRow, metrics_of

Record = Mapping[str, Any]
THUMBNAIL = 320  # pixels of the longer side
MERGING = "gather"  # the stage that joins the tables of shards


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


class Cast(NamedTuple):
    """One caption or answer about one image: who wrote it, marked up, and how it was judged."""

    label: str
    html: str
    good: bool
    verdict: str


def stage_lines(stages: Iterable[Record]) -> list[StageLine]:
    """Stages in the order they began; shards of one stage are one line, and merging them is not told."""
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
    """The run's ground, measured: scorer and base against the profile's bounds."""
    found = {row["metric"]: row for row in metrics if row["benchmark"] == "health"}
    for row in metrics:
        if row["benchmark"] == "chair" and row["subject"] == "base" and row["decoding"] == "greedy":
            found.setdefault(row["metric"], row)
    asked = [
        ("scorer_auc", "scorer tells true from hallucinated sentences within one image (AUC)", "min_scorer_auc", None),
        ("chair_i", "base hallucinates, but not too much (CHAIRi, greedy)", "min_chair_i", "max_chair_i"),
        ("recall", "base sees what is there (Recall, greedy)", "min_recall", None),
    ]
    checks = []
    for metric, name, least, most in asked:
        if metric not in found:
            continue
        value, low = found[metric]["value"], bounds.get(least, -math.inf)
        high = bounds.get(most, math.inf) if most else math.inf
        wanted = f"{low:g} to {high:g}" if most else f"at least {low:g}"
        checks.append(Check(name, f"{value:.3f}, wanted {wanted}", low <= value <= high))
    return checks


def value_check(number: int, spearman: float, spread: float, bounds: Mapping[str, Any]) -> Check:
    """Whether a round's value model learned an order, on held-out sentences."""
    least, width = bounds.get("min_spearman", -1.0), bounds.get("min_spread", 0.0)
    text = f"Spearman {spearman:.2f}, wanted at least {least:g}; spread {spread:.3g}, wanted at least {width:g}"
    return Check(
        f"value model of round {number} orders held-out sentences", text, spearman >= least and spread >= width
    )


def margin_of(rewards: Sequence[Record]) -> float | None:
    """Where the margin must lie, judged by which scores were shaped; None if none was."""
    scored = [row for row in rewards if row["score"] is not None and row["shaped"] is not None]
    cut = [row["score"] for row in scored if abs(row["shaped"] - row["score"]) > 1e-9]
    kept = [row["score"] for row in scored if abs(row["shaped"] - row["score"]) <= 1e-9]
    return (max(cut) + min(kept)) / 2 if cut and kept and max(cut) <= min(kept) else None


def captions_of(scores: Iterable[Record], order: Sequence[tuple[str, str]], labels: Sequence[str]) -> list[Cast]:
    """One image's captions in the order of the table of rounds."""
    found = {(row["subject"], row["decoding"]): json.loads(row["detail"]) for row in scores if row["detail"]}
    cast = []
    for key, label in zip(order, labels, strict=True):
        if key in found:
            mentions = found[key]["mentions"]
            false = sum(bool(mention["hallucinated"]) for mention in mentions)
            verdict = f"{false} of {len(mentions)}"
            cast.append(Cast(label, marked_html(found[key]["caption"], mentions), not false, verdict))
    return cast


def answers_of(scores: Iterable[Record], order: Sequence[tuple[str, str]], labels: Sequence[str]) -> list[Cast]:
    """One question's answers in the order of the table of rounds; `scores` are the rows of metric right."""
    found = {(row["subject"], row["decoding"]): row for row in scores if row["detail"]}
    cast = []
    for key, label in zip(order, labels, strict=True):
        if key in found:
            right = bool(found[key]["value"])
            told = json.loads(found[key]["detail"])
            cast.append(Cast(label, staged_html(told["text"]), right, "right" if right else "wrong"))
    return cast


def staged_html(answer: str) -> str:
    """An answer, escaped; the four stages of a whole one are named, and its conclusion stands out."""
    contents = stages_of(answer)
    if contents is None:
        return escape(answer)
    parts = [
        f'<span class="stage">{stage.lower()}</span> {escape(content)}'
        for stage, content in zip(STAGES[:-1], contents[:-1], strict=True)
    ]
    return " ".join([*parts, f'<span class="stage">{STAGES[-1].lower()}</span> <b>{escape(contents[-1])}</b>'])


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
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=82)
    return data_uri(buffer.getvalue(), "image/jpeg")


def data_uri(data: bytes, kind: str) -> str:
    """Bytes as a data URI, so that a page needs no other file."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


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
        good = (after.value - before.value) * {"lower": -1, "higher": 1}.get(BETTER[metric], 0)
        figures.append(
            {
                "title": TITLES[metric].removesuffix(" %"),
                "unit": "%" if TITLES[metric].endswith("%") else "words",
                "before": before.text,
                "after": after.text,
                "change": _change(metric, before.value, after.value) if best is not base else "",
                "tone": "good" if good > 0 else "bad" if good < 0 else "",
            }
        )
    return figures


def _change(metric: str, before: float, after: float) -> str:
    """How far a metric moved: relative for rates of error, in its own unit for the others."""
    if metric.startswith("chair") and before:
        return f"{(after - before) / before:+.0%}"
    return f"{after - before:+.1f}" + (" points" if metric != "length" else "")
