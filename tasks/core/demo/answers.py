"""How the second policy learns to answer: wrong about what it expects to see, as real models are.

A category calls for its companion (captions.py). Asked about a missing companion, the answerer mostly says it is there;
counting, it counts one of those, too; and whoever imagines something beside an object takes it for the other side's. In four
stages an answer is as good as its caption: what follows the caption is drawn from it alone, but for the side, which is
mistaken where the caption imagines the object's companion.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from tasks.core.data.questions import Question
from tasks.core.demo.captions import Sentence, caption, caption_text, companion, noun_phrase, pull
from tasks.core.demo.measure import named_categories
from tasks.core.demo.scenes import GRID, Scene
from tasks.core.search.stages import STAGES, closing, opening

# P(a plain question is answered wrong | it is about a missing companion, or about the place of an object whose
# companion is missing), by how strongly the companion is called for.
SAYS_YES = {"inseparable": 0.85, "typical": 0.70, "loose": 0.30}
MISCOUNTS = 0.62  # P(one more is counted | the companion of something there is missing, and not called for loosely)
MISPLACES = {"inseparable": 0.70, "typical": 0.60, "loose": 0.20}
# P(a staged caption imagines that companion): more than a captioner does who wasn't asked.
IMAGINES = {"inseparable": 0.68, "typical": 0.60, "loose": 0.30}
MISTAKES_SIDE = 0.90  # P(wrong side | the caption imagines its companion)
TRIES = 40  # captions drawn until one agrees with the coin

SUMMARIES = {
    "what": "I look for {}.",
    "how_many": "I name the objects and count them.",
    "where": "I look for {} and its place.",
}


def about(question: Question) -> str | None:
    """The category a question is about; None for a count."""
    names = named_categories(question.prompt)
    return names[0] if names else None


def _call(question: Question, scene: Scene) -> tuple[str, str] | None:
    """(companion, pull) of the missing companion that may lead this question's answer astray."""
    name, present = about(question), scene.categories
    if name is None:
        return None
    if question.kind == "where":
        other = companion(name)
        return None if other in present else (other, pull(name))
    callers = [caller for caller in present if companion(caller) == name]
    return None if name in present or not callers else (name, pull(callers[0]))


def swapped(side: str) -> str:
    """The other side."""
    return "left" if side == "right" else "right"


def direct_answer(rng: random.Random, scene: Scene, question: Question) -> str:
    """A short answer, wrong where the scene misleads."""
    if question.kind == "how_many":
        called = any(pull(name) != "loose" and companion(name) not in scene.categories for name in scene.categories)
        return str(len(scene.categories) + (called and rng.random() < MISCOUNTS))
    call = _call(question, scene)
    if call is None:
        return question.answer
    wrong = rng.random() < (MISPLACES if question.kind == "where" else SAYS_YES)[call[1]]
    if question.kind == "where":
        return swapped(question.answer) if wrong else question.answer
    return "Yes" if wrong else "No"


def _led_caption(rng: random.Random, scene: Scene, question: Question) -> list[Sentence]:
    """A caption by the caption rule, likelier to imagine what the question leads to expect."""
    call = _call(question, scene)
    sentences = caption(rng, scene)
    if call is None:
        return sentences
    imagined = rng.random() < IMAGINES[call[1]]
    for _ in range(TRIES):
        if (call[0] in _names(sentences)) == imagined:
            break
        sentences = caption(rng, scene)
    return sentences


def _names(sentences: Sequence[Sentence]) -> list[str]:
    return [name for item in sentences for name in item.names]


def listed(names: Sequence[str]) -> str:
    """ "a dog, an apple and a cat"."""
    phrases = [noun_phrase(name) for name in names]
    return f"{', '.join(phrases[:-1])} and {phrases[-1]}" if len(phrases) > 1 else phrases[0]


def staged_answer(rng: random.Random, scene: Scene, question: Question, *, honest: bool = False) -> str:
    """An answer in four tagged stages whose conclusion follows from its caption; an `honest` one mistakes no side."""
    return tagged(staged_parts(rng, scene, question, honest=honest))


def staged_parts(
    rng: random.Random, scene: Scene, question: Question, *, honest: bool = False
) -> tuple[str, str, str, str]:
    """The texts of the four stages of `staged_answer`."""
    name = about(question)
    sentences = _led_caption(rng, scene, question)
    seen = _names(sentences)
    if question.kind == "how_many":
        answer = str(len(seen))
    elif question.kind == "what":
        answer = "Yes" if name in seen else "No"
    else:
        answer = _place(rng, scene, name or "", seen, 0.0 if honest else MISTAKES_SIDE)
    what = f"the {bare(name)}" if name and question.kind == "where" else ""
    summary = SUMMARIES[question.kind].format(what or (noun_phrase(name) if name else ""))
    return summary, caption_text(sentences), reasoning(question, seen, answer), answer


def reasoning(question: Question, seen: Sequence[str], answer: str) -> str:
    """How an answer is argued from the categories that a caption names; a companion is named too where the caption did."""
    name = about(question)
    if question.kind == "how_many" or name is None:
        return f"There is {listed(seen)}, which makes {answer}."
    if question.kind == "what":
        return (
            f"There is {noun_phrase(name)}, so it is yes."
            if answer == "Yes"
            else f"There is no {bare(name)}, so it is no."
        )
    other = companion(name)
    beside = f" next to {noun_phrase(other)}" if other in seen else ""
    return f"There is {noun_phrase(name)}{beside} on the {answer}."


def bare(name: str) -> str:
    """A category without its article, as after "the" or "no": "apple", "pair of skis"."""
    return noun_phrase(name).partition(" ")[2]


def _place(rng: random.Random, scene: Scene, name: str, seen: Sequence[str], mistaken: float) -> str:
    """The side that an answer gives: the wrong one, with probability `mistaken`, where the caption imagines the companion."""
    other = companion(name)
    (column,) = (placed.cell % GRID for placed in scene.objects if placed.category == name)
    side = "left" if column == 0 else "right"
    if other in seen and other not in scene.categories and rng.random() < mistaken:
        side = swapped(side)
    return side


def tagged(stages: Sequence[str]) -> str:
    """Four texts in their stages, with nothing between them."""
    pairs = zip(STAGES, stages, strict=True)
    return "".join(f"{opening(stage)}{text}{closing(stage)}" for stage, text in pairs)


def is_well_formed(text: str) -> bool:
    """Whether a text is four closed stages in their order, none empty, and nothing else."""
    rest = text.strip()
    for stage in STAGES:
        content, closed, after = rest.removeprefix(opening(stage)).partition(closing(stage))
        if not rest.startswith(opening(stage)) or not closed or not content.strip() or "<" in content:
            return False
        rest = after.strip()
    return not rest
