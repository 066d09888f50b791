"""All strategies: looked up by name, brought by packages, on record, and safe where the policy or the scorer fails."""

from __future__ import annotations

import importlib
import json
import re
import sys
import types
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tasks.core.search.contract import Settings, Strategy
from tasks.core.search.registry import BUILT_IN, find, names
from tasks.core.search.requests import Candidate, Propose
from tests.support.number_world import World, ending, numbers, proposed, record, run, score_of, tagged
from tests.support.paths import GOLDEN, ROOT

PAGE = (ROOT / "docs" / "strategies.md").read_text()


# On record


def by_number(text: str) -> float | None:
    return score_of(text) if text else None


def judge(question: str) -> str:
    """Prefers what has the larger last digit, wherever it stands."""
    first, second = (part.split("\n\n")[0] for part in question.split("Response 1:\n")[1].split("Response 2:\n"))
    return f"I choose response {1 if re.findall('[0-9]', first)[-1:] > re.findall('[0-9]', second)[-1:] else 2}"


def whole(name: str, slot: int, **settings: Any) -> Any:
    return record(run(BUILT_IN[name], World(numbers(slot), by_number, judge=judge), **settings))


def staged(name: str, **settings: Any) -> Any:
    return {"0": record(run(BUILT_IN[name], World(tagged(), judge=judge), **settings))}


def slots(name: str, many: int, **settings: Any) -> Any:
    return {str(slot): whole(name, slot, **settings) for slot in range(many)}


GOLDEN_RUNS = {
    "guided_visvm": lambda: slots("visvm", 3, end="policy", filter="margin", margin=-0.6, max_sentences=6),
    "guided_clip_prm": lambda: slots("clip_prm", 2, width=2, end="policy", margin=0, max_sentences=3),
    "greedy": lambda: slots("greedy", 2),
    "sample": lambda: slots("sample", 2),
    "best_of_n": lambda: slots("best_of_n", 2),
    "best_of_n_value": lambda: slots("best_of_n", 2, by="value"),
    "best_of_n_judge": lambda: slots("best_of_n", 2, by="judge"),
    "majority_vote": lambda: slots("majority_vote", 2),
    "visvm_value": lambda: slots("visvm", 2, end="guide", end_value=0.0, redundancy=0.5, max_sentences=4),
    "visvm_published": lambda: slots("visvm", 2, published=True, max_sentences=4),
    "vimar": lambda: slots("vimar", 3, refine_below=-0.5, options={"append": 2}),
    "vimar_published": lambda: slots("vimar", 2, published=True, options={"threshold": -0.5}, max_sentences=4),
    "mrgd": lambda: slots("mrgd", 2, margin=0, max_sentences=4, options={"w": 0.3, "reward_std": 1.0}),
    "stage_beam": lambda: staged("stage_beam", options={"width": 3}),
    "swires": lambda: staged("swires", options={"reward_mean": 0.5, "reward_std": 0.0}),
    "beam": lambda: slots("beam", 1),
    "diverse_beam": lambda: slots("diverse_beam", 1),
    "contrastive": lambda: slots("contrastive", 1),
}


@pytest.mark.parametrize("name", GOLDEN_RUNS)
def test_the_whole_trace_is_the_one_on_record(name: str) -> None:
    assert GOLDEN_RUNS[name]() == json.loads((GOLDEN / f"{name}.json").read_text())


def test_every_strategy_is_on_record() -> None:
    assert all(any(strategy in run_name for run_name in GOLDEN_RUNS) for strategy in BUILT_IN)


# Where something fails

SENTENCES = [name for name in BUILT_IN if name not in ("beam", "diverse_beam", "contrastive")]
RELEASED = [
    (name, published) for name in SENTENCES for published in (False, True) if (name, published) != ("mrgd", True)
]


def silent(request: Propose) -> list[Candidate]:
    return ending(*[""] * len(request.temperatures))


def endless(request: Propose) -> list[Candidate]:
    """Never ends, never repeats, is always weak."""
    depth = request.after.handle if request.after else 0
    text = f"{request.until if request.until.startswith('<') else ''}Word{depth} w{'x' * depth}."
    return [Candidate(text, t, False, 5, handle=depth + 1) for t in request.temperatures]


@pytest.mark.parametrize(("name", "published"), RELEASED)
def test_an_empty_continuation_gives_an_empty_answer_with_a_trace(name: str, published: bool) -> None:
    world = World(silent, score=lambda text: None, value=lambda text: 0.0)
    result = run(BUILT_IN[name], world, temperatures=(0.0, 0.5), published=published)
    assert (result.text, result.sentences) == ("", [])
    assert result.trace and result.stop_reason and result.trace[-1].stop == result.stop_reason


# The released stage_beam draws which of two candidates the judge reads first.
@pytest.mark.parametrize(("name", "published"), [case for case in RELEASED if case != ("stage_beam", True)])
def test_where_nothing_can_be_scored_the_first_candidate_is_the_answer(name: str, published: bool) -> None:
    world = World(
        numbers(), score=lambda text: None, value=lambda text: -1.0, judge=lambda question: "I choose response 1"
    )
    # Released, a stage beam draws its pairs, so that either candidate may stand first.
    pairs = {"options": {"pairs": "both_orders"}} if name == "stage_beam" else {}
    result = run(BUILT_IN[name], world, published=published, max_sentences=2, **pairs)
    assert result.text.startswith(run(BUILT_IN["greedy"], World(numbers())).text[:6])


@pytest.mark.parametrize(("name", "published"), RELEASED)
def test_every_search_ends(name: str, published: bool) -> None:
    world = World(endless, score=lambda text: -1.0, value=lambda text: -1.0)
    result = run(BUILT_IN[name], world, published=published, refine_below=0.0, max_sentences=4, end="policy")
    assert result.stop_reason and len(result.sentences) <= 5
    assert len(world.requests) < 40


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_strategy_states_what_it_needs_in_known_words(name: str) -> None:
    assert BUILT_IN[name].needs(Settings((0.0,))) <= {
        "scorer",
        "margin",
        "value",
        "end_value",
        "weak",
        "answers",
        "objects",
    }


@pytest.mark.parametrize(
    ("name", "published"), [*RELEASED, *((name, False) for name in BUILT_IN if name not in SENTENCES)]
)
def test_a_strategy_requests_nothing_that_it_does_not_need(name: str, published: bool) -> None:
    for end, kept in product(("action", "policy", "vote", "guide"), ("none", "margin")):
        settings = {"published": published, "end": end, "filter": kept, "max_sentences": 3, "refine_below": -0.5}
        needs = BUILT_IN[name].needs(Settings((0.0, 0.1, 0.2), **settings))
        world = World(numbers(), by_number)
        run(BUILT_IN[name], world, **settings)
        kinds = {type(request).__name__ for request in world.requests}
        assert ("Score" in kinds, "Value" in kinds) == ("scorer" in needs, "value" in needs)


# By name

Install = Any  # (entry points as name -> "module:attribute", module's text) -> None


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a package `their_search` of one module, as pip leaves it."""

    def write(points: dict[str, str], source: str, package: str = "their-search") -> None:
        (tmp_path / "their_search.py").write_text(source)
        info = tmp_path / f"{package.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = "\n".join(f"{name} = {target}" for name, target in points.items())
        (info / "entry_points.txt").write_text(f"[visloop.strategies]\n{lines}\n")
        importlib.invalidate_caches()

    monkeypatch.syspath_prepend(str(tmp_path))
    yield write
    sys.modules.pop("their_search", None)


def block(heading: str, language: str) -> str:
    """The first code block of that language under a heading of the page."""
    return PAGE.split(f"## {heading}\n")[1].split(f"```{language}\n")[1].split("```")[0]


def test_built_in_names_come_first_and_are_documented() -> None:
    assert names()[: len(BUILT_IN)] == list(BUILT_IN)
    for name in BUILT_IN:
        assert f"`{name}`" in PAGE
        assert find(name) is BUILT_IN[name]


def test_the_error_of_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'mcts': want one of greedy, .*, contrastive"):
        find("mcts")


def test_the_page_s_strategy_runs_as_an_installed_one(install: Install) -> None:
    example = block("Your own strategy", "python")
    assert len(example.splitlines()) <= 30
    (line,) = [line for line in block("Your own strategy", "toml").splitlines() if "=" in line]
    name, target = (part.strip(' "') for part in line.split("="))
    install({name: target.replace("my_package", "their_search")}, example)
    assert names() == [*BUILT_IN, "patient"]
    patient = find("patient")
    assert isinstance(patient, Strategy) and patient.needs(Settings((0.0,))) == {"scorer", "margin"}
    answers = iter([proposed("Bad."), proposed("Good."), proposed("Never asked for.")])
    world = World(lambda request: next(answers), score={"Bad.": 0.1, "Good.": 0.9}.__getitem__)
    result = run(patient, world, margin=0.5)
    assert (result.text, result.stop_reason) == ("Good.", "good enough")
    assert [(row.score, row.chosen) for row in result.trace] == [(0.1, False), (0.9, True)]
    result = run(patient, World(numbers(), score=lambda text: None), margin=0.5)
    assert (result.stop_reason, [row.chosen for row in result.trace]) == ("last", [False, False, True])


def test_the_page_s_reward_is_a_reward() -> None:
    example = block("Your own reward", "python")
    assert len(example.splitlines()) <= 30
    module = types.ModuleType("their_reward")
    exec(compile(example, "docs/strategies.md", "exec"), module.__dict__)
    image = Image.new("RGB", (4, 4), (255, 255, 255))
    assert module.short_and_bright(image, ["A dog.", "A dog is here.", ""]) == [0.5, 0.25, None]


def test_a_package_cannot_take_a_built_in_name(install: Install) -> None:
    install({"visvm": "their_search:mine"}, "")
    for look_up in (names, lambda: find("visvm"), lambda: find("greedy")):
        with pytest.raises(
            ValueError, match="their-search brings a search strategy 'visvm', which is built in: rename"
        ):
            look_up()


def test_two_packages_cannot_have_one_name(install: Install) -> None:
    install({"mine": "their_search:mine"}, "")
    install({"mine": "their_search:mine"}, "", package="other-search")
    with pytest.raises(ValueError, match="both bring a search strategy 'mine': uninstall one"):
        find("mine")


def test_the_error_of_what_is_no_strategy_states_what_a_strategy_is(install: Install) -> None:
    install({"mine": "their_search:mine"}, "def mine(task): ...")
    with pytest.raises(
        TypeError, match=r"their_search:mine of their-search is function, not a Strategy: put @strategy\("
    ):
        find("mine")


if __name__ == "__main__":  # writes the record anew: look at the difference before you keep it
    for name, golden_run in GOLDEN_RUNS.items():
        (GOLDEN / f"{name}.json").write_text(json.dumps(golden_run(), indent=1) + "\n")
