"""CHAIR by what kind of thing an object is: COCO's supercategories, and things that are often made up against the others.

Which objects are often made up must be known from other captions than those that are measured: objects picked for what they
are in a table would look better in the next one whatever happened between (regression to the mean).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import NamedTuple

import numpy as np

from tasks.core.benchmarks.mentions import find_mentions
from tasks.core.metrics import Ratio

OFTEN, SELDOM = "often made up", "seldom made up"
LEAST_SAID = 5  # mentions of an object that a share stands on


class Told(NamedTuple):
    """A caption and what its image holds."""

    text: str
    truth: Set[str]


def made_up(captions: Iterable[Told]) -> dict[str, str]:
    """Each object that is named often enough -> OFTEN or SELDOM: is the share of wrong mentions above that of all mentions?"""
    said: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    for one in captions:
        for mention in find_mentions(one.text):
            said[mention.object] += 1
            wrong[mention.object] += mention.object not in one.truth
    if not said:
        return {}
    whole = wrong.total() / said.total()
    return {
        name: OFTEN if wrong[name] / count > whole else SELDOM for name, count in said.items() if count >= LEAST_SAID
    }


def groups_of(kinds: Mapping[str, str], supercategory: Mapping[str, str]) -> dict[str, frozenset[str]]:
    """Group -> its objects: OFTEN and SELDOM where `kinds` knows any, then the supercategories in the order they come."""
    found: dict[str, set[str]] = {}
    for name in (OFTEN, SELDOM):
        found[name] = {one for one, kind in kinds.items() if kind == name}
    for name, above in supercategory.items():
        found.setdefault(above, set()).add(name)
    return {name: frozenset(members) for name, members in found.items() if members}


def named_enough(captions: Sequence[Told], groups: Mapping[str, frozenset[str]], least: int) -> list[str]:
    """The groups of which the captions have so many mentions."""
    said = Counter(mention.object for one in captions for mention in find_mentions(one.text))
    return [name for name, members in groups.items() if sum(said[one] for one in members) >= least]


def by_group(captions: Sequence[Told], groups: Mapping[str, frozenset[str]]) -> dict[str, Ratio]:
    """`chair_i: GROUP` (wrong mentions of its objects over all of them) and `recall: GROUP` as counts of every caption [N]."""
    mentions = [[mention.object for mention in find_mentions(one.text)] for one in captions]
    found = {}
    for name, members in groups.items():
        said = [[one for one in named if one in members] for named in mentions]
        wrong = [sum(one not in told.truth for one in some) for some, told in zip(said, captions, strict=True)]
        present = [told.truth & members for told in captions]
        recalled = [len(there & set(some)) for there, some in zip(present, said, strict=True)]
        found[f"chair_i: {name}"] = Ratio(np.array(wrong, float), np.array([len(some) for some in said], float))
        found[f"recall: {name}"] = Ratio(np.array(recalled, float), np.array([len(one) for one in present], float))
    return found
