"""Questions about scenes, by the same rules as about any image with boxes."""

from __future__ import annotations

import random
from collections.abc import Sequence

from storage.schema import Box
from tasks.core.data.questions import KINDS, AnnotatedImage, Kind, Question, make_questions
from tasks.core.demo.captions import companion
from tasks.core.demo.glyphs import GLYPHS
from tasks.core.demo.scenes import SIDE, Scene

INSTRUCTION = "Answer in four stages."


def boxes_of(scene: Scene) -> list[Box]:
    """The boxes of a scene's objects, in px."""
    return [Box(placed.category, placed.left, placed.top, placed.width, placed.height) for placed in scene.objects]


def likely(present: Sequence[str]) -> list[str]:
    """What is expected beside the objects that are there: their companions, the present ones too."""
    return [companion(name) for name in present if name in GLYPHS]


def scene_questions(
    rng: random.Random, scene: Scene, *, kinds: Sequence[Kind] = KINDS, count: int = 1
) -> list[Question]:
    """Questions about a scene; half of the No questions are about a missing companion."""
    image = AnnotatedImage(boxes_of(scene), SIDE, SIDE)
    return make_questions(rng, image, vocabulary=tuple(GLYPHS), likely=likely, kinds=kinds, count=count)


def staged(prompt: str) -> str:
    """The question with the instruction to answer it in stages."""
    return f"{prompt} {INSTRUCTION}"
