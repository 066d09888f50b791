"""Measures how the second policy answers on new scenes: plainly, in stages, and as well as a search could choose."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.core.data.questions import KINDS, Question, is_right
from tasks.core.demo.answers import is_well_formed
from tasks.core.demo.audit import Decoding, ScoreSentences, answers_of, captions_of, separation
from tasks.core.demo.measure import hallucination
from tasks.core.demo.questions import scene_questions, staged
from tasks.core.demo.scenes import Scene
from tasks.core.search.stages import STAGES, content, opening

if TYPE_CHECKING:
    from transformers import LlavaProcessor

MAX_TOKENS = 160  # new tokens a staged answer
TEMPERATURE = 0.6  # LLaVA-CoT's
DRAWS = 4


class Right(NamedTuple):
    """Shares of right answers, over all questions and by kind."""

    all: float
    what: float
    how_many: float
    where: float
    n: int  # questions


def questions_about(scenes: Sequence[Scene], seed: int) -> list[Question]:
    """One question a scene."""
    rng = random.Random(f"questions {seed}")
    return [scene_questions(rng, scene)[0] for scene in scenes]


def share_right(questions: Sequence[Question], draws: Sequence[Sequence[str]], *, best: bool = False) -> Right:
    """Of draws[draw][question]: the mean over the draws; with `best` a question counts as right if any draw is."""
    worth: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for row, question in enumerate(questions):
        right = [is_right(draw[row], question.answer) for draw in draws]
        worth[question.kind].append(float(any(right)) if best else sum(right) / len(right))
    shares = {kind: sum(values) / max(len(values), 1) for kind, values in worth.items()}
    return Right(sum(map(sum, worth.values())) / len(questions), **shares, n=len(questions))


def answer_figures(
    model: Any, processor: LlavaProcessor, scenes: Sequence[Scene], score: ScoreSentences, *, seed: int
) -> dict[str, Any]:
    """All figures of `measured.json` about one policy's captions and answers."""
    questions, present = questions_about(scenes, seed), [scene.categories for scene in scenes]
    figures: dict[str, Any] = {}
    for temperature in (0.0, TEMPERATURE):
        texts = captions_of(model, processor, scenes, Decoding(temperature, seed))
        figures[f"captions t={temperature:g}"] = hallucination(texts, present)._asdict()
    plain, in_stages = ([form(question.prompt) for question in questions] for form in (str, staged))

    def answers(prompts: Sequence[str], temperature: float, draw: int = 0) -> list[str]:
        return answers_of(model, processor, scenes, prompts, Decoding(temperature, seed + draw, MAX_TOKENS))

    direct, greedy = answers(plain, 0.0), answers(in_stages, 0.0)
    draws = [answers(in_stages, TEMPERATURE, draw) for draw in range(DRAWS)]
    figures["direct t=0"] = share_right(questions, [direct])._asdict()
    figures["direct t=0.6"] = share_right(questions, [answers(plain, TEMPERATURE)])._asdict()
    figures["staged t=0"] = share_right(questions, [greedy])._asdict()
    figures["staged t=0.6"] = share_right(questions, draws)._asdict()
    figures[f"staged t=0.6, best of {DRAWS}"] = share_right(questions, draws, best=True)._asdict()
    figures["form"] = {
        "direct tagged": _share(opening(STAGES[0]) in text for text in direct),
        "staged tagged": _share(opening(STAGES[0]) in text for text in greedy),
        "staged well-formed": _share(map(is_well_formed, greedy)),
        "staged well-formed t=0.6": _share(is_well_formed(text) for draw in draws for text in draw),
    }
    captions = [[content(text, "CAPTION") for text in draw] for draw in (greedy, *draws)]
    figures["staged captions t=0"] = hallucination(captions[0], present)._asdict()
    figures["scorer on staged captions"] = separation(scenes, captions, score)._asdict()
    return figures


def _share(whether: Any) -> float:
    values = list(whether)
    return sum(values) / len(values)
