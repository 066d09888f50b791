"""Measures how the second policy answers on new scenes: plainly, in stages, and as well as a search could choose.

And how it judges: pairs of texts as the recipe draws them, by purpose, and pairs of its own captions, in both orders.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.core.data.questions import KINDS, Question, is_right
from tasks.core.demo.answers import is_well_formed
from tasks.core.demo.audit import Decoding, ScoreSentences, answers_of, captions_of, separation
from tasks.core.demo.judging import PURPOSES, Pair, better_caption, draw_pair
from tasks.core.demo.measure import hallucination
from tasks.core.demo.questions import scene_questions, staged
from tasks.core.demo.scenes import Scene
from tasks.core.search.judge import VERDICT_TOKENS, verdict
from tasks.core.search.stages import STAGES, closing, content, opening

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


class Judged(NamedTuple):
    """How pairs of texts are judged, each asked in both orders; shares of the replies, then of the pairs."""

    right: float  # replies that choose the better text
    first: float  # clear replies that choose response 1: .5 without a preference for a place
    unclear: float  # replies that choose neither
    right_in_both: float  # pairs whose better text is chosen in both orders, as a search asks for
    wrong_in_both: float  # pairs whose worse text is
    shorter: float  # pairs whose better text is the shorter: what a look at the length would give
    n: int  # pairs


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
    judges = judge_figures(model, processor, scenes, seed=seed)
    owned = own_captions(questions, scenes, draws)
    if owned:
        rows, pairs = zip(*owned, strict=True)
        judges["own captions"] = judged(pairs, verdicts_on(model, processor, [scenes[row] for row in rows], pairs))
    return figures | {f"judge, {name}": value._asdict() for name, value in judges.items()}


def judge_figures(model: Any, processor: LlavaProcessor, scenes: Sequence[Scene], *, seed: int) -> dict[str, Judged]:
    """A pair about each scene, the purposes in turn: how each is judged, and all of them."""
    rng = random.Random(f"judge {seed}")
    purposes = [list(PURPOSES)[row % len(PURPOSES)] for row in range(len(scenes))]
    pairs = [draw_pair(rng, scene, purpose) for scene, purpose in zip(scenes, purposes, strict=True)]
    verdicts = verdicts_on(model, processor, scenes, pairs)
    figures = {"all": judged(pairs, verdicts)}
    for purpose in dict.fromkeys(purposes):
        rows = [row for row, name in enumerate(purposes) if name == purpose]
        figures[purpose] = judged([pairs[row] for row in rows], [verdicts[row] for row in rows])
    return figures


def own_captions(
    questions: Sequence[Question], scenes: Sequence[Scene], draws: Sequence[Sequence[str]]
) -> list[tuple[int, Pair]]:
    """(scene's row, pair) of the first two of draws[draw][row] whose captions differ in truth, as stage_beam compares them."""
    owned = []
    for row, (question, scene) in enumerate(zip(questions, scenes, strict=True)):
        parts = [_until_caption(draw[row]) for draw in draws[:2]]
        first, second = (content(caption, "CAPTION") for _, caption in parts)
        better = better_caption(first, second, scene.categories)
        if better is not None and all(start for start, _ in parts):
            pair = Pair(
                "caption", staged(question.prompt), parts[0][0], parts[better][1], parts[1 - better][1], fact=""
            )
            owned.append((row, pair))
    return owned


def _until_caption(text: str) -> tuple[str, str]:
    """(summary, caption) of a staged answer with their tags; empty where one is missing."""
    start, closed, rest = text.partition(closing("SUMMARY"))
    caption, ended, _ = rest.partition(closing("CAPTION"))
    return (start + closed, caption + ended) if closed and ended else ("", "")


def verdicts_on(
    model: Any, processor: LlavaProcessor, scenes: Sequence[Scene], pairs: Sequence[Pair]
) -> list[tuple[int | None, int | None]]:
    """The verdicts on a pair about each scene, greedily as a search asks: with the better text first, and second."""
    decoding = Decoding(0.0, 0, VERDICT_TOKENS)
    orders = [
        map(
            verdict,
            answers_of(model, processor, scenes, [pair.question(better_first=first) for pair in pairs], decoding),
        )
        for first in (True, False)
    ]
    return list(zip(*orders, strict=True))


def judged(pairs: Sequence[Pair], verdicts: Sequence[tuple[int | None, int | None]]) -> Judged:
    """Figures of pairs (at least one) and `verdicts_on` them."""
    replies = [reply for both in verdicts for reply in both]
    clear = [reply for reply in replies if reply is not None]
    return Judged(
        right=sum((first == 1) + (second == 2) for first, second in verdicts) / len(replies),
        first=clear.count(1) / max(len(clear), 1),
        unclear=replies.count(None) / len(replies),
        right_in_both=sum(both == (1, 2) for both in verdicts) / len(verdicts),
        wrong_in_both=sum(both == (2, 1) for both in verdicts) / len(verdicts),
        shorter=sum(len(pair.better) < len(pair.worse) for pair in pairs) / len(pairs),
        n=len(pairs),
    )


def _share(whether: Any) -> float:
    values = list(whether)
    return sum(values) / len(values)
