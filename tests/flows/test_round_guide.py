"""A search is given what it needs of a round's guide, and nothing else: the rest would be in its key."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from flows.round.guide import RoundGuide, guide_for
from flows.round.prepare import LoopContext
from tasks.configs.search import SearchConfig
from tasks.models.handles import UNGUIDED, Guide

CONTEXT = cast(LoopContext, SimpleNamespace(scorer="the context's scorer"))
REWARDS = SimpleNamespace(margin=0.2, end_value=0.0, answer_mean=0.5, answer_std=0.1)
LEARNED = SimpleNamespace(value="V", values="V's held-out values")
GUIDE = cast(Any, RoundGuide)("policy", "rollouts", "scorer", REWARDS, LEARNED)
V = GUIDE.value_handle


def given(**settings: Any) -> Guide:
    return guide_for(CONTEXT, GUIDE, SearchConfig(**settings))


@pytest.mark.parametrize(
    ("settings", "guide"),
    [
        ({}, {"value": V, "end_value": 0.0}),
        ({"end_value": 0.3}, {"value": V}),
        ({"end": "policy"}, {"value": V}),
        ({"filter": "margin", "end": "vote"}, {"value": V, "scorer": "scorer", "margin": 0.2}),
        ({"guide": "random"}, {"held_out": "V's held-out values", "end_value": 0.0}),
        ({"strategy": "vimar", "guide": "random"}, {"held_out": "V's held-out values", "margin": 0.2}),
        ({"strategy": "vimar"}, {"value": V, "held_out": "V's held-out values", "margin": 0.2}),
        ({"strategy": "clip_prm"}, {"scorer": "scorer", "margin": 0.2}),
        ({"strategy": "greedy", "end": "guide"}, {}),
    ],
)
def test_a_search_gets_what_it_needs(settings: dict[str, Any], guide: dict[str, Any]) -> None:
    assert given(**settings) == Guide(**guide)


def test_without_a_guide_only_the_scorer_is_given() -> None:
    assert guide_for(CONTEXT, None, SearchConfig(strategy="best_of_n")) == Guide(scorer=cast(Any, CONTEXT.scorer))
    assert guide_for(CONTEXT, None, SearchConfig(strategy="greedy")) == UNGUIDED
