"""How the second policy learns to judge two answers, with the prompts of a search that lets the policy judge (search/judge.py).

The better text is known from the scene. Candidates are drawn as the policy draws them: two captions of the same rule, or
two ways to go on after the same stages, one of which is wrong about the image. Where the stages before them are wrong
already there is no better text, so they aren't. A reply first states the fact that decides, so that it is looked up in the
image before the choice.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tasks.core.data.questions import Question
from tasks.core.demo.answers import about, bare, direct_answer, reasoning, staged_parts, swapped, tagged
from tasks.core.demo.captions import PROMPTS, caption, caption_text, companion, noun_phrase
from tasks.core.demo.glyphs import GLYPHS
from tasks.core.demo.measure import named_categories, split_sentences
from tasks.core.demo.questions import scene_questions, staged
from tasks.core.demo.scenes import Scene
from tasks.core.search.judge import question as judge_prompt
from tasks.core.search.stages import STAGES, closing, opening

PURPOSES = {"summary": 0.05, "caption": 0.35, "reasoning": 0.2, "conclusion": 0.15, "answer": 0.25}  # share of each
INSTRUCTED = 0.7  # of the questions whose stages are judged; the others are bare, as a trained policy is asked
# Share of the pairs of captions whose worse one leaves out a true object. Else it invents one, and is the longer text; so
# that the length decides nothing by itself, both occur.
DROPS = 0.3
TRIES = 60  # texts drawn until two differ in truth


@dataclass(frozen=True, slots=True)
class Pair:
    """Two texts to be compared, as a search would ask."""

    purpose: str  # one of PURPOSES
    prompt: str
    so_far: str
    better: str
    worse: str
    fact: str  # a sentence about the image that decides

    def question(self, *, better_first: bool) -> str:
        """The judge's prompt in one order."""
        texts = (self.better, self.worse) if better_first else (self.worse, self.better)
        return judge_prompt(self.purpose, self.prompt, self.so_far, *texts)

    def turn(self, *, better_first: bool) -> tuple[str, str]:
        """The prompt in one order and the right reply."""
        return self.question(better_first=better_first), f"{self.fact} I choose response {1 if better_first else 2}."


def draw_pair(rng: random.Random, scene: Scene, purpose: str | None = None) -> Pair:
    """Two texts about a scene, one nearer to the truth; `purpose` is drawn by PURPOSES unless given."""
    purpose = purpose or rng.choices(list(PURPOSES), list(PURPOSES.values()))[0]
    if purpose == "answer":
        return rng.choice((_captions_to_prompts, _plain_answers, _staged_answers))(rng, scene)
    (item,) = scene_questions(rng, scene)
    prompt = staged(item.prompt) if rng.random() < INSTRUCTED else item.prompt
    if purpose == "summary":
        parts = staged_parts(rng, scene, item)
        better, worse = (_stages([text]) for text in (parts[0], parts[2]))
        return Pair(purpose, prompt, "", better, worse, "A plan does not answer.")
    if purpose == "caption":
        better, worse, fact = _two_captions(rng, scene, lambda: staged_parts(rng, scene, item)[1])
        start = _stages(staged_parts(rng, scene, item)[:1])
        return Pair(purpose, prompt, start, _stage("CAPTION", better), _stage("CAPTION", worse), fact)
    parts = _true_parts(rng, scene, item)
    wrong = _wrong_answer(rng, item)
    if purpose == "conclusion":
        better, worse = (_stage("CONCLUSION", text) for text in (parts[3], wrong))
        return Pair(purpose, prompt, _stages(parts[:3]), better, worse, fact_about(item))
    better, worse = (_stage("REASONING", text) for text in (parts[2], _wrong_reasoning(rng, item, parts[1], wrong)))
    return Pair(purpose, prompt, _stages(parts[:2]), better, worse, fact_about(item))


def fact_about(item: Question) -> str:
    """The true answer to a question as a sentence."""
    name = about(item)
    if item.kind == "how_many" or name is None:
        return f"There are {item.answer} objects."
    if item.kind == "where":
        return f"The {bare(name)} is on the {item.answer}."
    return f"There is {noun_phrase(name)}." if item.answer == "Yes" else f"There is no {bare(name)}."


def better_caption(first: str, second: str, present: Sequence[str]) -> int | None:
    """0 or 1: the caption that invents less or, of equal ones, leaves out less; None if neither does."""
    ranks = []
    for text in (first, second):
        named = set(named_categories(text))
        ranks.append((len(named - set(present)), len(set(present) - named)))
    return None if ranks[0] == ranks[1] else ranks.index(min(ranks))


def _two_captions(rng: random.Random, scene: Scene, draw: Callable[[], str]) -> tuple[str, str, str]:
    """(better, worse, the fact that decides) of captions that `draw` gives."""
    present = scene.categories
    first = draw()
    if rng.random() >= DROPS:
        for _ in range(TRIES):
            second = draw()
            better = better_caption(first, second, present)
            if better is not None:
                texts = (first, second) if better == 0 else (second, first)
                return *texts, _difference(*texts, present)
    sentences = split_sentences(first)
    gone = rng.choice([text for text in sentences if set(named_categories(text)) & set(present)])
    shorter = " ".join(text for text in sentences if text != gone)
    missed = next(name for name in named_categories(gone) if name in present)
    return first, shorter, f"There is {noun_phrase(missed)}."


def _difference(better: str, worse: str, present: Sequence[str]) -> str:
    """What is wrong with the worse caption: something that it alone invents, or else leaves out."""
    good, bad = named_categories(better), named_categories(worse)
    for name in bad:
        if name not in present and name not in good:
            return f"There is no {bare(name)}."
    return f"There is {noun_phrase(next(name for name in good if name in present and name not in bad))}."


def _captions_to_prompts(rng: random.Random, scene: Scene) -> Pair:
    better, worse, fact = _two_captions(rng, scene, lambda: caption_text(caption(rng, scene)))
    return Pair("answer", rng.choice(PROMPTS), "", better, worse, fact)


def _plain_answers(rng: random.Random, scene: Scene) -> Pair:
    (item,) = scene_questions(rng, scene)
    drawn = {direct_answer(rng, scene, item) for _ in range(3)} - {item.answer}
    worse = drawn.pop() if drawn else _wrong_answer(rng, item)
    return Pair("answer", item.prompt, "", item.answer, worse, fact_about(item))


def _staged_answers(rng: random.Random, scene: Scene) -> Pair:
    """Two whole answers of which one concludes wrongly, whatever their captions are like."""
    (item,) = scene_questions(rng, scene)
    prompt = staged(item.prompt) if rng.random() < INSTRUCTED else item.prompt
    right = _true_parts(rng, scene, item)
    for _ in range(TRIES):
        wrong = staged_parts(rng, scene, item)
        if wrong[3] != item.answer:
            break
    else:
        answer = _wrong_answer(rng, item)
        wrong = (*right[:2], _wrong_reasoning(rng, item, right[1], answer), answer)
    return Pair("answer", prompt, "", tagged(right), tagged(wrong), fact_about(item))


def _true_parts(rng: random.Random, scene: Scene, item: Question) -> tuple[str, str, str, str]:
    """Four stages that end in the true answer, of a caption that allows it."""
    for _ in range(TRIES):
        parts = staged_parts(rng, scene, item, honest=True)
        if parts[3] == item.answer:
            return parts
    names = list(scene.categories)
    rng.shuffle(names)
    text = " ".join(f"There is {noun_phrase(name)}." for name in names)
    return parts[0], text, reasoning(item, names, item.answer), item.answer


def _wrong_answer(rng: random.Random, item: Question) -> str:
    if item.kind == "how_many":
        return str(int(item.answer) + rng.choice((-1, 1, 1)))
    return swapped(item.answer) if item.kind == "where" else {"Yes": "No", "No": "Yes"}[item.answer]


def _wrong_reasoning(rng: random.Random, item: Question, described: str, answer: str) -> str:
    """An argument for a wrong answer: an object too many or too few counted, a side or an object mistaken."""
    seen = named_categories(described)
    if item.kind == "how_many":
        expected = [companion(name) for name in seen if companion(name) not in seen] or sorted(GLYPHS)
        more = next(name for name in (*expected, *sorted(GLYPHS)) if name not in seen)
        seen = [*seen, more] if int(answer) > len(seen) else seen[:-1]
    return reasoning(item, seen, answer)


def _stage(stage: str, text: str) -> str:
    return f"{opening(stage)}{text}{closing(stage)}"


def _stages(texts: Sequence[str]) -> str:
    return "".join(_stage(stage, text) for stage, text in zip(STAGES, texts, strict=False))
