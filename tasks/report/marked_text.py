"""Captions and answers as HTML: mentions marked as true or hallucinated, the stages of an answer named, all else escaped."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from tasks.core.search.stages import STAGES
from tasks.core.staged.answers import stages_of

Record = Mapping[str, Any]


class MarkedText(NamedTuple):
    """A caption or an answer about one image: who wrote it, its HTML, and how it was judged."""

    label: str
    html: str
    good: bool
    verdict: str


def captions_of(scores: Iterable[Record], order: Sequence[tuple[str, str]], labels: Sequence[str]) -> list[MarkedText]:
    """One image's captions in the order of the table of rounds; `order` holds (subject, decoding)."""
    captions = []
    for label, row in _in_order(scores, order, labels):
        detail = json.loads(row["detail"])
        mentions = detail["mentions"]
        false = sum(bool(mention["hallucinated"]) for mention in mentions)
        html = marked_html(detail["caption"], mentions)
        captions.append(MarkedText(label, html, not false, f"{false} of {len(mentions)}"))
    return captions


def answers_of(scores: Iterable[Record], order: Sequence[tuple[str, str]], labels: Sequence[str]) -> list[MarkedText]:
    """One question's answers in the order of the table of rounds; `scores` are the rows of metric right."""
    answers = []
    for label, row in _in_order(scores, order, labels):
        right, html = bool(row["value"]), staged_html(json.loads(row["detail"])["text"])
        answers.append(MarkedText(label, html, right, "right" if right else "wrong"))
    return answers


def marked_html(caption: str, mentions: Iterable[Record]) -> str:
    """Escape the caption and wrap its mentions; of overlapping ones the first is marked."""
    parts, done = [], 0
    for mention in sorted(mentions, key=lambda m: (m["start"], -m["end"])):
        start, end = mention["start"], mention["end"]
        if start < done or end > len(caption) or start >= end:
            continue
        kind, truth = ("false", "not in the image") if mention["hallucinated"] else ("true", "in the image")
        title = escape(f"{mention['object']}: {truth}", quote=True)
        parts.append(escape(caption[done:start]))
        parts.append(f'<mark class="{kind}" title="{title}">{escape(caption[start:end])}</mark>')
        done = end
    parts.append(escape(caption[done:]))
    return "".join(parts)


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


def _in_order(
    scores: Iterable[Record], order: Sequence[tuple[str, str]], labels: Sequence[str]
) -> list[tuple[str, Record]]:
    """(label, row) of every subject and decoding that has a detailed row."""
    rows = {(row["subject"], row["decoding"]): row for row in scores if row["detail"]}
    return [(label, rows[key]) for key, label in zip(order, labels, strict=True) if key in rows]
