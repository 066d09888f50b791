"""A strategy with its settings in one word, as the command line and benchmarks name it."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from tasks.configs import search as search_settings
from tasks.configs.search import FORMER_STOPS, SearchConfig, present_spelling, search_config

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
    config = search_config(BASE, "visvm:append=3,end=vote")
    assert (config.options, config.end) == ({"width": 2, "append": 3}, "vote")


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
        (
            "visvm:stop=never",
            "search.stop is 'never' and was reward, vote, chosen, value; it has become search.end: action",
        ),
        ("visvm:stop=vote,end=policy", "search.stop has become search.end and search.filter: take out stop, or end"),
        ("visvm:choose=greedy,greedy=false", "choose=greedy takes the greedy candidate and greedy=false draws none"),
    ],
)
def test_an_invalid_text_is_refused(spec: str, problem: str) -> None:
    with pytest.raises((ValueError, ValidationError), match=problem):
        search_config(BASE, spec)


# The former setting `stop`

PRESENT = {
    "reward": "end=policy,filter=margin",
    "vote": "end=vote",
    "chosen": "end=policy",
    "value": "end=guide,end_value=0",
}


@pytest.mark.parametrize("stop", FORMER_STOPS)
def test_a_former_stop_is_the_config_of_its_present_spelling(stop: str) -> None:
    present = search_config(BASE, f"visvm:{PRESENT[stop]}")
    assert search_config(BASE, f"visvm:stop={stop}") == present
    assert SearchConfig.model_validate({**BASE.model_dump(exclude={*FORMER_STOPS["value"]}), "stop": stop}) == present
    assert "stop" not in present.model_dump()


@pytest.mark.parametrize("stop", FORMER_STOPS)
def test_one_warning_has_the_present_spelling(stop: str, caplog: pytest.LogCaptureFixture) -> None:
    search_settings._warn_of_former.cache_clear()
    for _ in range(2):
        search_config(BASE, f"visvm:stop={stop}")
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith(f"search.stop={stop} is now search {PRESENT[stop]}; the former spelling")


def test_a_former_stop_undoes_the_filter_of_what_it_is_laid_over() -> None:
    filtered = SearchConfig(filter="margin", end_value=0.5)
    assert search_config(filtered, "visvm:stop=vote").filter == "none"
    assert search_config(filtered, "visvm:stop=value").end_value == 0


def test_settings_without_a_stop_are_as_they_were(caplog: pytest.LogCaptureFixture) -> None:
    settings = {"end": "vote", "candidates": 3}
    assert present_spelling(settings) == settings and not caplog.records


@pytest.mark.parametrize("stop", ["never", None, True, ["vote"]])
def test_an_unknown_stop_is_refused(stop: object) -> None:
    with pytest.raises(ValueError, match=r"has become search\.end"):
        SearchConfig.model_validate({"stop": stop})
