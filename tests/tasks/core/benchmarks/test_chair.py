"""CHAIR on cases made by hand: which words are objects, which of them are not there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.benchmarks.chair import METRICS, ChairItem, chair_item, chair_ratios, true_objects
from tasks.core.benchmarks.coco_words import PHRASES, SYNONYMS, singular
from tasks.core.benchmarks.mentions import find_mentions


def objects(text: str) -> list[str]:
    return [mention.object for mention in find_mentions(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A hot dog on a plate.", ["hot dog"]),
        ("Hot dogs and dogs.", ["hot dog", "dog"]),
        ("a baby elephant beside a baby", ["elephant", "person"]),
        ("an adult giraffe and an adult", ["giraffe", "person"]),
        ("Two teddy bears and a bear.", ["teddy bear", "bear"]),
        ("a train track without any trains", ["train"]),
        ("Orange juice beside an orange", ["orange"]),
        ("three knives, two mice, four geese", ["knife", "mouse", "bird"]),
        ("a bus stop", []),
        ("buses, glasses of wine, wine glasses", ["bus", "wine glass"]),
        ("a pair of scissors, a pair of skis", ["scissors", "skis"]),
        ("The children play with a tennis ball on a tennis court.", ["person", "sports ball"]),
        ("a TV, a cell-phone and a laptop computer", ["tv", "cell phone", "laptop"]),
        ("A person's dog, the dogs' bowls, a 'cat'", ["person", "dog", "dog", "bowl", "cat"]),
        ("a catcher's mitt, three neckties", ["baseball glove", "tie"]),
        ("nothing of the kind", []),
        ("", []),
    ],
)
def test_mentions_are_those_a_person_would_count(text: str, expected: list[str]) -> None:
    assert objects(text) == expected


@pytest.mark.parametrize("category", SYNONYMS)
def test_every_category_is_matched_in_the_singular_and_the_plural(category: str) -> None:
    assert objects(f"There is a {category}.") == [category]
    plural = category if category.endswith("s") else category + ("es" if category.endswith(("ch", "sh")) else "s")
    if category not in ("person", "knife", "mouse", "broccoli"):
        assert objects(f"Many {plural} are here.") == [category]


def test_every_synonym_stands_for_its_category() -> None:
    for category, synonyms in SYNONYMS.items():
        for phrase in filter(None, (part.strip() for part in synonyms.split(","))):
            assert objects(f"We see a {phrase} there.") == [category], phrase


def test_80_categories() -> None:
    assert len(SYNONYMS) == 80
    assert {value for value in PHRASES.values() if value} == SYNONYMS.keys()


@given(
    st.lists(st.sampled_from(["a hot dog", "DOGS", "the  dining table,", "x", "(sofa)", "\n"]), max_size=8).map(
        " ".join
    )
)
def test_offsets_point_at_the_words(text: str) -> None:
    mentions = find_mentions(text)
    for mention in mentions:
        assert text[mention.start : mention.end] == mention.text
    assert [m.start for m in mentions] == sorted({m.start for m in mentions})


def test_counts_of_a_caption() -> None:
    truth = {"dog", "couch", "cup"}
    counts, judged = chair_item("A puppy on a sofa. A cat near the dog. Another cat.", truth)
    assert counts == ChairItem(hallucinated=2, mentioned=5, recalled=2, present=3, words=12)
    assert [(mention.text, wrong) for mention, wrong in judged] == [
        ("puppy", False), ("sofa", False), ("cat", True), ("dog", False), ("cat", True),
    ]  # fmt: skip


def test_truth_is_instances_and_reference_captions_together() -> None:
    assert true_objects(["dog"], ["Two puppies on a sofa.", "nothing"]) == {"dog", "couch"}


def test_metrics_are_ratios_of_sums() -> None:
    items = [ChairItem(1, 4, 2, 2, 10), ChairItem(0, 2, 1, 3, 6), ChairItem(0, 0, 0, 1, 2)]
    ratios = chair_ratios(items)
    assert tuple(ratios) == METRICS
    values = {name: ratio.value() for name, ratio in ratios.items()}
    assert values == pytest.approx({"chair_s": 1 / 3, "chair_i": 1 / 6, "recall": 3 / 6, "length": 6.0})


def test_captions_without_any_object_divide_by_nothing() -> None:
    counts, _ = chair_item("What a day!", set())
    assert counts == ChairItem(0, 0, 0, 0, 3)
    assert {name: ratio.value() for name, ratio in chair_ratios([counts]).items()} == {
        "chair_s": 0, "chair_i": 0, "recall": 0, "length": 3,
    }  # fmt: skip
    assert chair_ratios([])["chair_i"].value() == 0


@pytest.mark.parametrize(
    ("plural", "word"),
    [("dogs", "dog"), ("ponies", "pony"), ("benches", "bench"), ("buses", "bus"), ("boxes", "box"), ("bus", "bus"),
     ("glasses", "glass"), ("skis", "skis"), ("scissors", "scissors"), ("is", "is"), ("vases", "vase"), ("ties", "tie"),
     ("oranges", "orange"), ("horses", "horse"), ("toothbrushes", "toothbrush"), ("couches", "couch")],
)  # fmt: skip
def test_plurals_lose_their_ending(plural: str, word: str) -> None:
    assert singular(plural) == word
