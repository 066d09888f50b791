"""Pairs of texts to be judged: the better one is nearer to the truth, prompts are the judge's own, no place is better."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import pytest

from tasks.core.data.questions import is_right
from tasks.core.demo.answer_audit import judged, own_captions, questions_about
from tasks.core.demo.answers import staged_answer
from tasks.core.demo.judging import PURPOSES, Pair, better_caption, draw_pair
from tasks.core.demo.measure import named_categories
from tasks.core.demo.policy_model import CONTEXT
from tasks.core.demo.scenes import Scene, sample_scenes
from tasks.core.demo.train_answers import build_answer_tokenizer, draw_batch
from tasks.core.search.best_of_n import best_of_n
from tasks.core.search.judge import VERDICT_TOKENS, verdict
from tasks.core.search.requests import Ask, Candidate
from tasks.core.search.stage_beam import stage_beam
from tasks.core.search.stages import STAGES, conclusion, content
from tests.support.number_world import World, proposed, run, script

SCENES = list(sample_scenes("judging tests", 300))


def pairs(purpose: str) -> list[tuple[Scene, Pair]]:
    rng = random.Random(purpose)
    return [(scene, draw_pair(rng, scene, purpose)) for scene in SCENES]


def wrongness(text: str, scene: Scene) -> tuple[int, int]:
    named = set(named_categories(text))
    return len(named - set(scene.categories)), len(set(scene.categories) - named)


def test_the_better_caption_invents_less_or_leaves_out_less() -> None:
    for scene, pair in pairs("caption"):
        better, worse = (content(text, "CAPTION") for text in (pair.better, pair.worse))
        assert wrongness(better, scene) < wrongness(worse, scene)
        assert better_caption(better, worse, scene.categories) == 0
        assert better_caption(worse, better, scene.categories) == 1
        assert better_caption(better, better, scene.categories) is None
    shorter = [len(pair.better) < len(pair.worse) for _, pair in pairs("caption")]
    assert 0.5 < sum(shorter) / len(shorter) < 0.85, "the length alone decides too much"


@pytest.mark.parametrize("purpose", ["reasoning", "conclusion"])
def test_what_is_better_gives_the_true_answer_and_the_worse_another(purpose: str) -> None:
    for scene, pair in pairs(purpose):
        question = pair.prompt.split("?")[0]
        about, present = named_categories(question), scene.categories
        if "How many" in question:
            answer = str(len(present))
        elif "left" in question:
            (place,) = [item for item in scene.objects if item.category == about[0]]
            answer = "left" if place.cell % 3 == 0 else "right"
        else:
            answer = "Yes" if about[0] in present else "No"
        assert is_right(last_word(pair.better), answer) and not is_right(last_word(pair.worse), answer)


def last_word(text: str) -> str:
    return (conclusion(text) if "CONCLUSION" in text else content(text, "REASONING")).rstrip(".").split()[-1]


def test_every_purpose_and_both_places_occur() -> None:
    _, conversations = draw_batch(random.Random(0), "judging", 400)
    replies = [reply for ((_, reply),) in conversations]
    assert Counter(map(verdict, replies)) == {1: 200, 2: 200}
    for ((first, _),), ((second, _),) in list(pairwise(conversations))[::2]:
        shown = [text.split("Response 1:\n")[1].split("\n\nResponse 2:\n")[0] for text in (first, second)]
        assert shown[0] != shown[1] and all(text in first and text in second for text in shown)
    rng = random.Random(0)
    drawn = Counter(draw_pair(rng, scene).purpose for scene in SCENES)
    assert drawn.keys() == PURPOSES.keys()


@pytest.mark.parametrize("purpose", PURPOSES)
def test_prompts_are_what_a_search_asks_and_replies_what_it_reads(purpose: str) -> None:
    tokenizer = build_answer_tokenizer()
    for _, pair in pairs(purpose)[:40]:
        world = World(script(*_steps(pair)))
        if purpose == "answer":
            run(best_of_n, world, by="judge", prompt=pair.prompt)
        else:
            run(stage_beam, world, prompt=pair.prompt)
        requests = [request.question for request in world.of(Ask)][:2]
        assert requests == [pair.question(better_first=True), pair.question(better_first=False)]
        for better_first in (True, False):
            prompt, reply = pair.turn(better_first=better_first)
            assert prompt == pair.question(better_first=better_first)
            assert verdict(reply) == (1 if better_first else 2)
            assert len(tokenizer(reply).input_ids) < VERDICT_TOKENS
            assert len(tokenizer(prompt).input_ids) + VERDICT_TOKENS < CONTEXT


def _steps(pair: Pair) -> list[list[Candidate]]:
    """What a policy proposes until the pair is compared; then it ends."""
    if pair.purpose == "answer":
        return [proposed(pair.better, pair.worse)]
    rest, before = pair.so_far, []
    for stage in STAGES:
        text, closed, rest = rest.partition(f"</{stage}>")
        if not closed:
            break
        before.append([Candidate(text + closed, 0.6, False, 1, handle=1, space="")])
    both = [Candidate(text, 0.6, True, 1, handle=1, space="") for text in (pair.better, pair.worse)]
    return [*before, both]


def test_figures_of_verdicts() -> None:
    pair = Pair("answer", "Q", "", "Yes", "No, never", "")
    figures = judged([pair] * 4, [(1, 2), (1, 1), (2, 1), (None, 2)])
    assert figures == (4 / 8, 4 / 7, 1 / 8, 1 / 4, 1 / 4, 1.0, 4)


def test_own_captions_are_paired_where_they_differ_in_truth() -> None:
    questions = questions_about(SCENES, 0)
    draws = [
        [staged_answer(random.Random(f"{draw} {row}"), scene, question) for row, (scene, question) in enumerate(
            zip(SCENES, questions, strict=True))]
        for draw in range(2)
    ]  # fmt: skip
    owned = own_captions(questions, SCENES, draws)
    assert 0.2 < len(owned) / len(SCENES) < 0.95
    for row, pair in owned:
        assert wrongness(pair.better, SCENES[row]) < wrongness(pair.worse, SCENES[row])
        assert {pair.so_far + pair.better, pair.so_far + pair.worse} <= {
            draw[row].partition("</CAPTION>")[0] + "</CAPTION>" for draw in draws
        }
    assert own_captions(questions[:1], SCENES[:1], [["no stages"], ["none here"]]) == []
