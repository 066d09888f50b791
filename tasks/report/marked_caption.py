"""A caption as HTML, each mention of an object marked as true or hallucinated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any


def marked_html(caption: str, mentions: Iterable[Mapping[str, Any]]) -> str:
    """Escape the caption and wrap its mentions; of overlapping ones the first is marked."""
    parts, done = [], 0
    for mention in sorted(mentions, key=lambda m: (m["start"], -m["end"])):
        start, end = mention["start"], mention["end"]
        if start < done or end > len(caption) or start >= end:
            continue
        kind, said = ("false", "not in the image") if mention["hallucinated"] else ("true", "in the image")
        title = escape(f"{mention['object']}: {said}", quote=True)
        parts.append(escape(caption[done:start]))
        parts.append(f'<mark class="{kind}" title="{title}">{escape(caption[start:end])}</mark>')
        done = end
    parts.append(escape(caption[done:]))
    return "".join(parts)
