"""What all pages share: templates beside this file, figures as markup, a file that is whole or not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from tasks.stage.progress import duration


def render(template: str, /, **content: Any) -> str:
    """A template with its content; everything that is not marked safe is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["seconds"] = duration
    return environment.get_template(template).render(**content)


def inline_svg(data: bytes, said: str) -> Markup:
    """A figure of ours (SVG) as markup, with what it shows for those who do not see it."""
    return Markup(data.decode().replace("<svg", f'<svg role="img" aria-label="{escape(said)}"', 1))


def write_whole(path: Path, page: str) -> Path:
    """Write a page into a folder that is made if need be; who opens it meanwhile sees the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(page, encoding="utf-8")
    unfinished.replace(path)
    return path
