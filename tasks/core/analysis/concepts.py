"""CHAIR by the kind of object: COCO's supercategories, and objects that are often hallucinated against the others.

Which objects are often hallucinated must be known from other captions than those that are measured: objects selected for what
they are in a table would look better in the next table whatever happened in between (regression to the mean).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import NamedTuple

import numpy as np

from tasks.core.benchmarks.mentions import find_mentions
from tasks.core.metrics import Ratio

OFTEN, SELDOM = "often made up", "seldom made up"
MIN_MENTIONS = 5  # of an object that gets a kind


class AnnotatedCaption(NamedTuple):
    """A caption and the objects of its image."""

    text: str
    truth: Set[str]


def object_kinds(captions: Iterable[AnnotatedCaption]) -> dict[str, str]:
    """Each object with enough mentions -> OFTEN or SELDOM: is its share of wrong mentions above that of all mentions?"""
    mentioned: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    for caption in captions:
        for mention in find_mentions(caption.text):
            mentioned[mention.object] += 1
            wrong[mention.object] += mention.object not in caption.truth
    if not mentioned:
        return {}
    share = wrong.total() / mentioned.total()
    return {
        name: OFTEN if wrong[name] / count > share else SELDOM
        for name, count in mentioned.items()
        if count >= MIN_MENTIONS
    }


def groups_of(kinds: Mapping[str, str], supercategory: Mapping[str, str]) -> dict[str, frozenset[str]]:
    """Group -> its objects: OFTEN and SELDOM where `kinds` has any, then the supercategories in the order they come."""
    groups: dict[str, set[str]] = {}
    for group in (OFTEN, SELDOM):
        groups[group] = {name for name, kind in kinds.items() if kind == group}
    for name, above in supercategory.items():
        groups.setdefault(above, set()).add(name)
    return {group: frozenset(members) for group, members in groups.items() if members}


def frequent_groups(
    captions: Sequence[AnnotatedCaption], groups: Mapping[str, frozenset[str]], least: int
) -> list[str]:
    """The groups with at least that many mentions in the captions."""
    counts = Counter(mention.object for caption in captions for mention in find_mentions(caption.text))
    return [group for group, members in groups.items() if sum(counts[name] for name in members) >= least]


def group_ratios(captions: Sequence[AnnotatedCaption], groups: Mapping[str, frozenset[str]]) -> dict[str, Ratio]:
    """`chair_i: GROUP` (wrong mentions of its objects over all of them) and `recall: GROUP` as counts of every caption [N]."""
    mentions = [[mention.object for mention in find_mentions(caption.text)] for caption in captions]
    ratios = {}
    for group, members in groups.items():
        mentioned = [[name for name in named if name in members] for named in mentions]
        present = [caption.truth & members for caption in captions]
        wrong = [sum(name not in there for name in named) for named, there in zip(mentioned, present, strict=True)]
        recalled = [len(there & set(named)) for named, there in zip(mentioned, present, strict=True)]
        ratios[f"chair_i: {group}"] = Ratio(
            np.array(wrong, float), np.array([len(named) for named in mentioned], float)
        )
        ratios[f"recall: {group}"] = Ratio(
            np.array(recalled, float), np.array([len(there) for there in present], float)
        )
    return ratios
