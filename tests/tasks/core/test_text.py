"""Sentences with offsets: nothing lost, nothing merged, no end where there is none."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tasks.core.text import first_sentence_end, split_sentences, words

prose = st.lists(
    st.sampled_from(["A dog runs.", "It is 3.5 m.", "Mr. Low sits.", " ", "\n\n", "1.", "Ünï 日本。", "Why?", "x"]),
    max_size=12,
).map(" ".join)  # fmt: skip


@given(st.one_of(st.text(), prose))
@example("a\r\nb.  C 🐕‍🦺. D")
def test_no_character_is_lost_and_offsets_point_into_the_text(text: str) -> None:
    end = 0
    for sentence in split_sentences(text):
        assert text[sentence.start : sentence.end] == sentence.text == sentence.text.strip() != ""
        assert text[end : sentence.start].strip() == ""
        end = sentence.end
    assert text[end:].strip() == ""


@given(st.integers(1, 6))
def test_repeats_stay_apart(count: int) -> None:
    text = " ".join(["There is a dog."] * count)
    sentences = split_sentences(text)
    assert [sentence.text for sentence in sentences] == ["There is a dog."] * count
    assert len({sentence.start for sentence in sentences}) == count


@pytest.mark.parametrize(
    "text",
    [
        "The bar is 3.5 m wide.",
        "Mr. Smith and Dr. Who wait.",
        "It weighs approx. 30 kg.",
        "Fruit, incl. apples, lies there.",
        "Cats vs. dogs is the theme.",
        "He lives in the U.S. with a dog.",
        "A sign, e.g. a stop sign, stands there.",
    ],
)
def test_a_full_stop_inside_a_sentence_is_no_end(text: str) -> None:
    assert [sentence.text for sentence in split_sentences(text)] == [text]


def test_a_word_that_only_ends_like_an_abbreviation_ends_its_sentence() -> None:
    text = "This is a map of Africa. The engine revs. It is loud."
    assert [sentence.text for sentence in split_sentences(text)] == [
        "This is a map of Africa.",
        "The engine revs.",
        "It is loud.",
    ]


def test_a_list_number_is_no_sentence() -> None:
    assert [sentence.text for sentence in split_sentences("1. A red car. 2. A dog.")] == ["1. A red car.", "2. A dog."]


@pytest.mark.parametrize("text", ["", " ", "\n\t "])
def test_a_blank_text_has_no_sentence(text: str) -> None:
    assert split_sentences(text) == []
    assert first_sentence_end(text) is None


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("A dog runs.", None),  # "." may still become "3.5" or "...": not sure yet
        ("A dog runs. ", None),
        ("A dog runs. A", 11),
        (" A dog runs. A cat sits. And", 12),
        ("It is 3.", None),
        ("It is 3.5 m wide", None),
        ("Mr. Smith", None),
        ("1. A", None),
        ("Is it a dog? Yes", 12),
    ],
)
def test_the_first_sentence_ends_once_the_second_has_begun(text: str, end: int | None) -> None:
    assert first_sentence_end(text) == end


@given(prose)
def test_the_first_end_seen_while_a_text_grows_is_where_the_whole_text_ends_it(text: str) -> None:
    ends = [end for at in range(len(text)) if (end := first_sentence_end(text[:at])) is not None]
    for end in ends:
        assert text[:end].strip()


def test_equality_ignores_case_and_punctuation_but_not_words() -> None:
    assert words("A Dog's here!") == words("a dog's here")
    assert words("a dog") != words("a dog dog")
    assert words("The T-shirt, 3 cats_and: don't") == ["the", "t-shirt", "3", "cats", "and", "don't"]
