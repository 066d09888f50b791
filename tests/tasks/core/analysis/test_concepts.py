"""CHAIR by kind of object."""

from __future__ import annotations

import numpy as np

from tasks.analysis.concepts import SUPERCATEGORY
from tasks.core.analysis.concepts import (
    OFTEN,
    SELDOM,
    AnnotatedCaption,
    frequent_groups,
    group_ratios,
    groups_of,
    object_kinds,
)
from tasks.core.benchmarks.chair import chair_item, chair_ratios

DOGS = [
    AnnotatedCaption("A dog and a fork.", {"dog"}),
    AnnotatedCaption("A dog. A fork.", {"dog", "fork"}),
    AnnotatedCaption("A cat.", set()),
]


def test_often_is_above_the_share_of_all_mentions() -> None:
    # Forks: 5 of 10 wrong; dogs: 0 of 10; cats are named too seldom to count. All: 5 of 24.
    captions = [AnnotatedCaption("a dog and a fork", {"dog"} | ({"fork"} if i % 2 else set())) for i in range(10)]
    assert object_kinds([*captions, *[AnnotatedCaption("a cat", {"cat"})] * 4]) == {"dog": SELDOM, "fork": OFTEN}
    assert object_kinds([]) == {}


def test_every_object_has_one_supercategory_and_the_made_up_come_first() -> None:
    groups = groups_of({"dog": SELDOM, "fork": OFTEN}, SUPERCATEGORY)
    assert list(groups)[:3] == [OFTEN, SELDOM, "person"]
    plain = groups_of({}, SUPERCATEGORY)
    assert sum(map(len, plain.values())) == 80 and OFTEN not in plain


def test_groups_are_counted_apart() -> None:
    result = group_ratios(DOGS, {"animal": frozenset({"dog", "cat"}), "kitchen": frozenset({"fork"})})
    assert result["chair_i: animal"].value() == 1 / 3 and result["chair_i: kitchen"].value() == 1 / 2
    assert result["recall: animal"].value() == 1 and result["recall: kitchen"].value() == 1
    assert result["chair_i: kitchen"].bottom.tolist() == [1, 1, 0]


def test_over_all_objects_it_is_chair() -> None:
    whole = group_ratios(DOGS, {"all": frozenset({"dog", "cat", "fork"})})
    chair = chair_ratios([chair_item(dog.text, set(dog.truth))[0] for dog in DOGS])
    for metric in ("chair_i", "recall"):
        assert np.array_equal(whole[f"{metric}: all"].top, chair[metric].top)
        assert np.array_equal(whole[f"{metric}: all"].bottom, chair[metric].bottom)


def test_groups_that_are_hardly_named_are_left_out() -> None:
    groups = {"animal": frozenset({"dog", "cat"}), "kitchen": frozenset({"fork"})}
    assert frequent_groups(DOGS, groups, 3) == ["animal"] and frequent_groups(DOGS, groups, 2) == ["animal", "kitchen"]
