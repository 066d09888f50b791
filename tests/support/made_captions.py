"""Invented images with invented traces: what a search might have left, without any model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import PIL.Image
import PIL.ImageDraw

from storage.schema import Sample
from tasks.core.search.contract import SearchResult, TraceRow
from tasks.core.search.requests import Candidate

STREET = "A red car waits at a crossing while a woman pushes a bicycle."
SIGN = "Behind them a <b>bakery</b> has its sign lit & its door open."


def row(
    step: int,
    index: int,
    text: str,
    score: float | None = None,
    value: float | None = None,
    **more: Any,
) -> TraceRow:
    """One candidate; temperatures grow with the index."""
    ended = more.pop("ended", False)
    return TraceRow(step, index, Candidate(text, round(0.2 * index, 1), ended, 9), score, value, **more)


def guided() -> SearchResult:
    """Three steps by value, the last of which ends: a repeat, an empty candidate, a negative value."""
    result = SearchResult([STREET, SIGN])
    result.trace = [
        row(0, 0, STREET, 0.312, 0.604, chosen=True),
        row(0, 1, "A red car and a bus wait at a crossing.", 0.288, 0.431),
        row(0, 2, "Two dogs sleep on a sofa.", 0.104, -0.212),
        row(1, 0, SIGN, 0.264, 0.497, chosen=True),
        row(1, 1, "The street is wet after the rain, and the lights of the shops shine in it.", 0.251, 0.385),
        row(1, 2, STREET),
        row(2, 0, "", ended=True),
        row(2, 1, "The sky is full of green elephants.", 0.061, -0.145),
        row(2, 2, "A clock shows noon.", 0.119, 0.02),
    ]
    return result.finish("reward")


def answers() -> SearchResult:
    """Whole answers, chosen by their mean score."""
    texts = [
        "A kitchen with a wooden table. Three cups stand on it. A window lets the morning in, and a cat sits below it.",
        "A kitchen with a wooden table, two cups and a plate of fruit.\nOn the wall hangs a clock.",
        "A kitchen.",
    ]
    result = SearchResult([texts[1]])
    result.trace = [
        row(0, index, text, score, chosen=index == 1, ended=True)
        for index, (text, score) in enumerate(zip(texts, (0.241, 0.277, 0.198), strict=True))
    ]
    return result.finish("end")


def revised() -> SearchResult:
    """Two phases: whole answers, then one of the winner's sentences kept and the other replaced."""
    first, weak, better = "A boat lies on a beach.", "A man flies a kite beside it.", "Nets dry in the sun beside it."
    result = SearchResult([first, better])
    result.trace = [
        row(0, 0, f"{first} {weak}", value=0.295, chosen=True, ended=True, phase="answers"),
        row(0, 1, "A boat on sand. Gulls.", value=0.21, ended=True, phase="answers"),
        row(1, 0, first, value=0.41, chosen=True, phase="refine"),
        row(2, 0, weak, value=0.18, ended=True, phase="refine"),
        row(2, 1, better, value=0.39, chosen=True, phase="refine"),
    ]
    return result.finish("refined")


def draw(folder: Path, names: Sequence[str], size: tuple[int, int] = (900, 600)) -> list[Path]:
    """Image files of plain shapes."""
    paths = []
    for index, name in enumerate(names):
        picture = PIL.Image.new("RGB", size, ("#a8c5da", "#e7d3b1", "#b9d8b4")[index % 3])
        pen = PIL.ImageDraw.Draw(picture)
        pen.rectangle((0, size[1] * 2 // 3, *size), fill="#777b80")
        pen.ellipse((size[0] // 5, size[1] // 3, size[0] // 2, size[1] * 5 // 6), fill="#c0392b")
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
        paths.append(path)
    return paths


class FakeSearcher:
    """Returns the three results above in turn, the last image first; records how it was constructed."""

    made: ClassVar[list[tuple[Any, ...]]] = []

    def __init__(self, *given: Any, **more: Any) -> None:
        self.made.append((*given, more))

    def run(
        self, samples: Sequence[Sample], picture: Callable[[Sample], PIL.Image.Image]
    ) -> Iterator[tuple[int, SearchResult]]:
        """As the real one: in any order."""
        for index in reversed(range(len(samples))):
            assert picture(samples[index]).mode == "RGB"
            yield index, (guided, answers, revised)[index % 3]()
