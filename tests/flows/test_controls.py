"""Controls: which there are, and best of n at equal tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows import self_training
from flows.round.controls import best_of, controls_of, widest_equal
from tasks.configs.evaluate import EvaluateConfig
from tasks.configs.search import SearchConfig
from tasks.stage.plan import planning
from tests.support.tiny_run import tiny


@given(st.integers(1, 200), st.floats(0.5, 50), st.integers(1, 40), st.floats(0, 5))
def test_the_widest_within_the_budget_is_taken_where_tokens_grow_as_n(
    budget: int, each: float, start: int, fixed: float
) -> None:
    tried: list[int] = []

    def searched(n: int) -> float:
        tried.append(n)
        return fixed + n * each

    n, used = widest_equal(searched, lambda tokens: tokens, budget, start)
    assert used == fixed + n * each and len(tried) == len(set(tried))
    assert used <= budget or n == 1
    if not fixed:
        assert n == max(1, int(budget / each)) and len(tried) <= 3


def test_an_answer_that_is_longer_than_the_budget_is_taken_alone_and_a_plan_tries_once() -> None:
    assert widest_equal(lambda n: 100.0 * n, lambda tokens: tokens, 50, 6) == (1, 100.0)
    assert widest_equal(lambda n: n, lambda n: None, 50, 6) == (6, 6)


def test_no_more_answers_are_tried_than_a_search_may_have() -> None:
    tried: list[int] = []
    assert widest_equal(lambda n: tried.append(n) or n, lambda tokens: tokens, 1e6, 6, 256) == (256, 256)
    assert tried == [6, 256]


def titles(**settings: object) -> list[str]:
    return [control.title for control in controls_of(SearchConfig.model_validate(settings))]


def test_a_search_by_v_has_every_control_and_one_by_the_score_those_without_v() -> None:
    assert titles() == ["random V", "V, gamma 0", "CLIP-PRM", "greedy with the same end"]
    assert titles(strategy="vimar") == ["random V", "V, gamma 0", "CLIP-PRM"]
    assert titles(strategy="vimar", by="score") == ["CLIP-PRM"]
    assert titles(published=True) == ["random V", "V, gamma 0", "CLIP-PRM"], "the released loop chooses by V alone"
    for strategy in ("greedy", "clip_prm", "best_of_n"):
        assert titles(strategy=strategy) == []
    assert titles(guide="random") == titles(choose="greedy") == []


def test_best_of_n_is_by_the_score_whatever_the_search_was_by() -> None:
    config = best_of(SearchConfig(strategy="vimar", by="value", published=True, options={"append": 1}), 5)
    assert (config.strategy, config.by, config.candidates, config.options, config.published) == (
        "best_of_n", None, 5, {}, False
    )  # fmt: skip


def test_controls_stand_beside_a_search() -> None:
    with pytest.raises(ValueError, match="add search"):
        EvaluateConfig(decodings=("greedy", "controls"))


def planned(*overrides: str) -> list[tuple[str, str, str]]:
    with planning() as plan:
        self_training.plan(tiny("rounds=2", *overrides))
    return [(entry.stage, entry.label, entry.action) for entry in plan.entries]


def test_a_plan_shows_the_controls_of_the_first_round_and_nothing_where_they_are_not_wanted(home: Path) -> None:
    without = {entry[:2] for entry in planned("evaluate.decodings=[greedy,search]")}
    entries = planned("evaluate.decodings=[greedy,search,controls]")
    more = [entry for entry in entries if entry[:2] not in without]
    assert [label for stage, label, _ in more if stage == "search"] == [
        f"base control: {title}"
        for title in ("random V", "V, gamma 0", "CLIP-PRM", "greedy with the same end", "best of n")
    ]
    assert [label for stage, label, _ in more if stage == "train_value"] == ["gamma 0"]
    assert [label for stage, label, _ in more if stage == "evaluate"][-1] == "base control: best of ?, equal tokens"
    assert {action for _, _, action in more} == {"waits"}


def test_a_second_v_learns_of_the_answers_that_the_first_one_learned_of_and_searches_none_itself(home: Path) -> None:
    entries = planned("value.guided_rounds=1", "evaluate.decodings=[greedy,search,controls]")
    first = entries[: next(i for i, entry in enumerate(entries) if entry[:2] == ("promote", "round-1"))]
    again = [entry[:2] for entry in entries[len(first) :]]
    assert ("train_value", "gamma 0") in again
    until = again.index(("train_value", "gamma 0"))
    assert not [label for _, label in again[:until] if "guided-1" in label]
    after = again[until : again.index(("search", "base control: V, gamma 0"))]
    assert [stage for stage, _ in after if stage in ("guided_rollouts", "score", "shape_rewards")] == []
