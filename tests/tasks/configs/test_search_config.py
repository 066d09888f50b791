"""A strategy with its settings in one word, as the command line and benchmarks name it."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from tasks.configs.search import SearchConfig, search_config

BASE = SearchConfig(candidates=3, top_p=0.8, options={"width": 2})


def test_a_name_alone_is_that_strategy_with_the_other_settings() -> None:
    assert search_config(BASE, "greedy") == BASE.model_copy(update={"strategy": "greedy", "options": {}})
    assert search_config(BASE, "visvm") == BASE, "the same strategy lost its own options"


def test_keys_are_settings_and_what_is_no_setting_is_an_option() -> None:
    config = search_config(BASE, "best_of_n:by=value,candidates=4")
    assert (config.strategy, config.by, config.candidates, config.top_p, config.options) == (
        "best_of_n",
        "value",
        4,
        0.8,
        {},
    )
    config = search_config(BASE, "swires:rounds=2,temperature=0.4,published=true")
    assert (config.options, config.published) == ({"rounds": 2, "temperature": 0.4}, True)
    config = search_config(BASE, "visvm:append=3,stop=vote")
    assert (config.options, config.stop) == ({"width": 2, "append": 3}, "vote")


@pytest.mark.parametrize(
    ("spec", "kind", "value"),
    [("a=1", int, 1), ("a=0.5", float, 0.5), ("a=true", bool, True), ("a=mean", str, "mean")],
)
def test_values_are_of_the_kind_they_look_like(spec: str, kind: type, value: object) -> None:
    options = search_config(BASE, f"greedy:{spec}").options
    assert options == {"a": value} and type(options["a"]) is kind


def test_none_restores_the_strategys_default() -> None:
    assert search_config(SearchConfig(by="value"), "best_of_n:by=null").by is None


def test_the_given_config_is_unchanged() -> None:
    search_config(BASE, "visvm:width=5,candidates=9")
    assert (BASE.options, BASE.candidates) == ({"width": 2}, 3)


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("mcts", "'mcts': want one of greedy"),
        ("", "'': want one of greedy"),
        ("best_of_n:by", "'by' is no key=value; write for example best_of_n:by=value,candidates=4"),
        ("best_of_n:by=everyone", "Input should be 'score', 'value' or 'judge'"),
        ("best_of_n:candidates=0", "greater than or equal to 1"),
        ("best_of_n:a=[1", "'\\[1' is no value"),
        ("best_of_n:a=[1]", "options.a"),
        ("visvm:strategy=mcts", "'mcts': want one of greedy"),
    ],
)
def test_an_invalid_text_is_refused(spec: str, problem: str) -> None:
    with pytest.raises((ValueError, ValidationError), match=problem):
        search_config(BASE, spec)
