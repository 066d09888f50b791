"""Questions about an image with short answers that its annotated boxes give, and whether an answer is right.

For any data set with boxes. Objects that nobody annotated make any such question wrong now and then; what the boxes
themselves leave open isn't asked: a place near the middle, the place of a category that occurs twice, a large count.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from storage.schema import Box
from tasks.core.search.majority_vote import normalise
from tasks.core.search.stages import STAGES, conclusion, opening

Kind = Literal["what", "how_many", "where"]
KINDS: tuple[Kind, ...] = ("what", "how_many", "where")
Likely = Callable[[Sequence[str]], Iterable[str]]

MOST_COUNTED = 10  # a count above it is a guess for people too
_FAMILIES = (frozenset({"yes", "no"}), frozenset({"left", "right"}))
_PHRASES = {"skis": "a pair of skis", "scissors": "a pair of scissors", "broccoli": "broccoli"}


@dataclass(frozen=True, slots=True)
class Question:
    """A question and its true answer: "Yes", "No", a count in digits, "left" or "right"."""

    kind: Kind
    prompt: str
    answer: str


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """What questions are made from."""

    boxes: Sequence[Box]
    width: float  # px
    height: float  # px


def make_questions(
    rng: random.Random,
    image: AnnotatedImage,
    *,
    vocabulary: Sequence[str],
    likely: Likely | None = None,
    kinds: Sequence[Kind] = KINDS,
    count: int = 1,
) -> list[Question]:
    """Up to `count` different questions about one image, the kinds in turn in a drawn order.

    `what` asks whether an object is there; half of the answers are No, and half of those about a category of `vocabulary`
    that `likely` names for the present ones, where it names one that is absent; the others about any absent one. `how_many`
    asks for all annotated objects, at most MOST_COUNTED. `where` asks for the side of a category that occurs once and whose
    centre lies outside the middle third. Fewer where the image gives no more; none without boxes.

    Raises:
        ValueError: for an unknown kind, and for an image without an extent.
    """
    if unknown := set(kinds) - set(KINDS):
        raise ValueError(f"unknown kinds {sorted(unknown)}: want some of {', '.join(KINDS)}")
    if image.width <= 0 or image.height <= 0:
        raise ValueError(f"an image of {image.width} x {image.height} px: want both above 0")
    boxes = image.boxes
    if not boxes or not kinds:
        return []
    present = sorted({box.category for box in boxes})
    absent = sorted(set(vocabulary) - set(present))
    plausible = sorted(set(likely(present)) & set(absent)) if likely else []
    candidates: dict[Kind, Iterator[Question]] = {
        "what": _what(rng, present, absent, plausible),
        "how_many": _how_many(boxes),
        "where": _where(rng, boxes, image.width),
    }
    turns = rng.sample(list(kinds), len(kinds))
    made: list[Question] = []
    while turns and len(made) < count:
        kind = turns.pop(0)
        question = next(candidates[kind], None)
        if question is not None:
            made.append(question)
            turns.append(kind)
    return made


def with_article(category: str) -> str:
    """A category with its article: "an apple", "a pair of skis"."""
    return _PHRASES.get(category) or f"{'an' if category[0] in 'aeiou' else 'a'} {category}"


def _what(
    rng: random.Random, present: Sequence[str], absent: Sequence[str], plausible: Sequence[str]
) -> Iterator[Question]:
    """Yes and No in turn from a coin's side on, until one has run out: balanced whatever the images hold."""
    there, not_there = rng.sample(present, len(present)), rng.sample(absent, len(absent))
    expected = rng.sample(plausible, len(plausible))
    yes = rng.random() < 0.5
    while there if yes else not_there:
        if yes:
            name = there.pop()
        else:
            name = expected.pop() if expected and rng.random() < 0.5 else not_there[-1]
            not_there.remove(name)
            expected = [other for other in expected if other != name]
        yield Question("what", f"Is there {with_article(name)} in the image?", "Yes" if yes else "No")
        yes = not yes


def _how_many(boxes: Sequence[Box]) -> Iterator[Question]:
    if len(boxes) <= MOST_COUNTED:
        yield Question("how_many", "How many objects are there in the image?", str(len(boxes)))


def _where(rng: random.Random, boxes: Sequence[Box], width: float) -> Iterator[Question]:
    names = [box.category for box in boxes]
    for box in rng.sample(boxes, len(boxes)):
        centre = (box.x + box.w / 2) / width
        if names.count(box.category) == 1 and not 1 / 3 <= centre <= 2 / 3:
            name = with_article(box.category).removeprefix("an ").removeprefix("a ")
            side = "left" if centre < 0.5 else "right"
            yield Question("where", f"Is the {name} on the left or on the right?", side)


def is_right(text: str, answer: str) -> bool:
    """Whether a text gives the answer.

    Of a tagged text only the conclusion counts; one that opened a stage but no conclusion is wrong. Both are compared as the
    majority vote compares them (letter case, articles and punctuation aside, number words as digits). A longer text is
    right too where the answer is the only word of its family in it: yes or no; left or right; a number. So "There is no cat"
    is No and "two dogs" is 2, while "yes and no" is neither. An empty text is wrong.
    """
    if any(opening(stage) in text for stage in STAGES) and opening("CONCLUSION") not in text:
        return False
    given, wanted = normalise(conclusion(text)), normalise(answer)
    if not given or not wanted:
        return False
    if given == wanted:
        return True
    words = set(given.split())
    if _is_number(wanted):
        return {word for word in words if _is_number(word)} == {wanted}
    return any(wanted in family and words & family == {wanted} for family in _FAMILIES)


def _is_number(word: str) -> bool:
    return word.removeprefix("-").replace(".", "", 1).isdecimal()
