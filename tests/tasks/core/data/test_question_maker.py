"""Questions made from boxes are balanced, unambiguous and true to the boxes; an answer is right by the written rule."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.schema import Box
from tasks.core.data.questions import KINDS, MOST_COUNTED, AnnotatedImage, Question, is_right, make_questions

VOCABULARY = ("apple", "bus", "cat", "dog", "skis", "wine glass", "zebra")
SIDE = 90.0
BOXES = st.lists(
    st.builds(Box, st.sampled_from(VOCABULARY), *[st.floats(0, 60) for _ in "xy"], *[st.floats(1, 30) for _ in "wh"]),
    max_size=12,
)


def make(seed: int, boxes: list[Box], **options) -> list[Question]:
    return make_questions(random.Random(seed), AnnotatedImage(boxes, SIDE, SIDE), vocabulary=VOCABULARY, **options)


def category_of(question: Question) -> str:
    (name,) = (name for name in VOCABULARY if name in question.prompt)
    return name


@given(st.integers(0, 10**6), BOXES, st.integers(1, 6))
def test_every_answer_follows_from_the_boxes(seed: int, boxes: list[Box], count: int) -> None:
    questions = make(seed, boxes, count=count)
    assert len(questions) <= count
    assert len({question.prompt for question in questions}) == len(questions)
    assert bool(questions) == bool(boxes)
    for question in questions:
        if question.kind == "how_many":
            assert int(question.answer) == len(boxes) <= MOST_COUNTED
            continue
        result = [box for box in boxes if box.category == category_of(question)]
        if question.kind == "what":
            assert question.answer == ("Yes" if result else "No")
        else:
            (box,) = result
            middle = box.x + box.w / 2
            assert middle < SIDE / 3 if question.answer == "left" else middle > 2 * SIDE / 3


THREE = [Box("cat", 0, 0, 20, 20), Box("dog", 65, 0, 20, 20), Box("dog", 35, 0, 20, 20), Box("bus", 30, 30, 30, 30)]


def test_kinds_and_answers_are_balanced() -> None:
    likely = {"cat": "apple", "dog": "cat", "bus": "zebra"}
    questions = [
        make(seed, THREE, likely=lambda present: [likely[name] for name in present])[0] for seed in range(3000)
    ]
    kinds = Counter(question.kind for question in questions)
    assert all(abs(kinds[kind] / 3000 - 1 / 3) < 0.04 for kind in KINDS)
    what = [question for question in questions if question.kind == "what"]
    refused = Counter(category_of(question) for question in what if question.answer == "No")
    assert abs(refused.total() / len(what) - 0.5) < 0.05
    # Two plausible ones get half, and a share of the other half, where all four absent ones are as likely.
    assert abs((refused["apple"] + refused["zebra"]) / refused.total() - 0.75) < 0.07
    assert {"cat", "bus", "dog"}.isdisjoint(refused)


def test_what_is_ambiguous_makes_no_question() -> None:
    where = [make(seed, THREE, kinds=("where",))[0] for seed in range(50)]
    assert {question.prompt for question in where} == {"Is the cat on the left or on the right?"}  # two dogs, bus amid
    assert make(0, THREE[1:], kinds=("where",), count=3) == []
    assert make(0, THREE * 3, kinds=("how_many",)) == []


def test_as_many_as_there_are_and_no_twins() -> None:
    questions = make(0, THREE, count=100)
    kinds = Counter(question.kind for question in questions)
    assert kinds == {"what": kinds["what"], "how_many": 1, "where": 1}
    answers = Counter(question.answer for question in questions if question.kind == "what")
    assert 3 in answers.values() and abs(answers["Yes"] - answers["No"]) <= 1  # all three that are there
    assert {question.kind for question in make(1, THREE, count=3)} == set(KINDS)


def test_questions_are_worded_as_people_word_them() -> None:
    boxes = [Box("apple", 0, 0, 10, 10), Box("skis", 80, 0, 10, 10)]
    prompts = {q.prompt for seed in range(9) for q in make(seed, boxes, count=20)}
    assert {"Is there an apple in the image?", "Is there a pair of skis in the image?"} <= prompts
    assert {"Is the apple on the left or on the right?", "Is the pair of skis on the left or on the right?"} <= prompts


def test_a_seed_gives_the_same_questions_and_bad_input_is_refused() -> None:
    assert make(5, THREE, count=4) == make(5, THREE, count=4)
    with pytest.raises(ValueError, match="unknown kinds"):
        make(0, THREE, kinds=("why",))
    with pytest.raises(ValueError, match="0 x 90"):
        make_questions(random.Random(0), AnnotatedImage(THREE, 0, 90), vocabulary=VOCABULARY)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Yes", "Yes"),
        ("yes.", "Yes"),
        ("Yes, there is one.", "Yes"),
        ("There is no cat in the image.", "No"),
        ("Three", "3"),
        ("There are three of them.", "3"),
        ("none", "0"),
        ("It is on the left.", "left"),
        ("<CONCLUSION>No</CONCLUSION>", "No"),
        ("<SUMMARY>Yes?</SUMMARY><CAPTION>Two cats.</CAPTION><CONCLUSION> 3 </CONCLUSION>", "3"),
        ("<CONCLUSION>It is 3", "3"),
        ("A red bus", "red bus"),
    ],
)
def test_right(text: str, answer: str) -> None:
    assert is_right(text, answer)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("", "No"),
        ("...", "No"),
        ("No", "Yes"),
        ("Yes and no.", "Yes"),
        ("Left or right.", "left"),
        ("Two or three.", "3"),
        ("13", "3"),
        ("Maybe", "No"),
        ("<SUMMARY>Yes</SUMMARY>", "Yes"),  # no conclusion
        ("<CONCLUSION></CONCLUSION>", "Yes"),
        ("<REASONING>It is yes.</REASONING><CONCLUSION>No</CONCLUSION>", "Yes"),
        ("A bus that is red", "red bus"),
    ],
)
def test_wrong(text: str, answer: str) -> None:
    assert not is_right(text, answer)
