"""Completeness of hand-made answers about images of which the objects are known."""

from __future__ import annotations

from collections import Counter

import pytest
from PIL import Image

from tasks.core.models.combined import Combined, Scale
from tasks.core.models.in_context import score_after
from tasks.core.models.object_list import Completeness, object_scores, objects_named, pixel_digest

PICTURES = {"a": Image.new("RGB", (4, 4), "red"), "b": Image.new("RGB", (4, 4), "blue"), "c": Image.new("RGB", (4, 4))}
THERE = {
    pixel_digest(PICTURES["a"]): frozenset(["dog", "cat", "couch", "hot dog"]),
    pixel_digest(PICTURES["b"]): frozenset[str](),
}
ANSWER = ["A puppy lies on a sofa.", "The dog looks at a zebra.", "The room is hot.", "Cats sleep near the puppy."]


def items(job: str) -> list[tuple[str, str, str]]:
    return [(job, " ".join(ANSWER[:i]), sentence) for i, sentence in enumerate(ANSWER)]


def test_a_sentence_earns_what_it_adds_and_an_answer_the_share_that_it_names() -> None:
    scores = Completeness(THERE, Counter())
    assert scores.score_after(PICTURES, items("a")) == [0.5, 0.0, 0.0, 0.25]
    assert scores.shares(PICTURES, items("a")) == [0.5, 0.5, 0.5, 0.75]
    assert scores.score(PICTURES, [("a", ANSWER[3]), ("a", "")]) == [0.5, 0.0]


def test_no_phrase_spans_two_sentences() -> None:
    assert objects_named("It is hot. Dogs run.") == {"dog"} and objects_named("It eats a hot dog.") == {"hot dog"}


def test_where_nothing_was_detected_nothing_is_missing() -> None:
    counters: Counter[str] = Counter()
    scores = Completeness(THERE, counters)
    for job, unseen in (("b", 0), ("c", 1), ("c", 1)):
        assert scores.shares(PICTURES, items(job)) == scores.score_after(PICTURES, items(job)) == [0.0] * 4
        assert counters["images_without_detections"] == unseen
        scores.forget(job)


def test_in_a_sum_it_reads_the_text_before_and_the_others_do_not() -> None:
    parts = [object_scores(THERE, Counter()), Completeness(THERE, Counter())]
    summed = Combined(parts, [Scale(1.0), Scale(2.0)])
    assert score_after(summed, PICTURES, items("a")) == pytest.approx([1 + 1, 0, 0, 1 + 0.5])
    assert summed.score(PICTURES, [("a", ANSWER[1])]) == [0 + 0.5]
    assert score_after(parts[0], PICTURES, items("a")) == [1, 0, 0, 1]
