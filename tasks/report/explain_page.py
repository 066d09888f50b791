"""The page of `visloop caption --explain`: how each caption was found, candidate by candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from storage import images
from storage.schema import ImageFile
from tasks.report.explain import explain_steps, trace_dicts, tree
from tasks.report.pages import inline_jpeg, render, write_whole

if TYPE_CHECKING:
    from tasks.core.search.contract import SearchResult

TEMPLATE = "explain.html.jinja"
PICTURE = 640  # pixels of a shown image's longer side
OPEN_CARDS = 6  # with more images than this, the page's steps are folded


class Captioned(Protocol):
    """An image file with its caption, or with what is wrong with the file."""

    @property
    def path(self) -> Path:
        """The file."""

    @property
    def result(self) -> SearchResult | None:
        """The caption with its trace; None for a file that can't be used."""

    @property
    def error(self) -> str:
        """Why not."""


def trace_of(image: Captioned) -> list[dict[str, Any]]:
    """Every candidate, for JSON."""
    return trace_dicts(image.result.trace) if image.result else []


def explained(image: Captioned) -> list[tuple[str, list[tuple[bool, str]]]]:
    """For a terminal: a step's title, and (chosen, line) of its candidates."""
    return tree(explain_steps(image.result.trace)) if image.result else []


def write_page(path: Path, described: Sequence[Captioned], facts: Mapping[str, Any]) -> None:
    """Write one HTML page that shows how each caption was found; it needs no other file and no script.

    Args:
        path: the file; its folder is made.
        described: the images; those that could not be read are listed.
        facts: how it was done, by name: what stands in the page's head.
    """
    cards = [_card(image.path, image.result) for image in described if image.result]
    page = render(
        TEMPLATE,
        facts=facts,
        cards=cards,
        errors=[image for image in described if image.result is None],
        unfolded=len(cards) <= OPEN_CARDS,
    )
    write_whole(path, page)


def _card(path: Path, result: SearchResult) -> dict[str, Any]:
    """One image of the page."""
    picture, size = inline_jpeg(images.decode(ImageFile(bytes=None, path=str(path))), PICTURE, quality=85)
    return {
        "path": str(path),
        "name": path.name,
        "picture": picture,
        "size": size,
        "text": result.text,
        "stop": result.stop_reason,
        "steps": explain_steps(result.trace),
        "candidates": len(result.trace),
        "tokens": sum(row.proposal.drawn for row in result.trace),
    }
