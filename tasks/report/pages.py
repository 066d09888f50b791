"""What all pages share: templates, pictures and figures inside the page, Markdown tables, a file that is whole or not there."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2
import PIL.Image
from markupsafe import Markup, escape

from tasks.stage.progress import duration

ARROWS = {"lower": " ↓", "higher": " ↑", "": ""}  # which way a metric is better -> behind its title


def render(template: str, /, **content: Any) -> str:
    """A template with its content; everything that is not marked safe is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["seconds"] = duration
    environment.globals["arrows"] = ARROWS
    return environment.get_template(template).render(**content)


def inline_svg(data: bytes, description: str) -> Markup:
    """A figure of ours (SVG) as markup, with a description for those who do not see it."""
    return Markup(data.decode().replace("<svg", f'<svg role="img" aria-label="{escape(description)}"', 1))


def data_uri(data: bytes, kind: str) -> str:
    """Bytes as a data URI of a media type, so that a page needs no other file."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def inline_jpeg(picture: PIL.Image.Image, longest: int, quality: int) -> tuple[str, tuple[int, int]]:
    """The picture as a data URI, its longer side shrunk to at most `longest` pixels, and its size (width, height)."""
    shrunk, data = picture.copy(), io.BytesIO()
    shrunk.thumbnail((longest, longest))
    shrunk.save(data, "JPEG", quality=quality)
    return data_uri(data.getvalue(), "image/jpeg"), shrunk.size


def markdown_lines(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown: the first column to the left, the others to the right."""
    lines = ["| " + " | ".join(titles).lstrip() + " |", "|---|" + "--:|" * (len(titles) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def write_whole(path: Path, page: str) -> Path:
    """Write a page into a folder that is made if need be; until then readers get the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(page, encoding="utf-8")
    unfinished.replace(path)
    return path
