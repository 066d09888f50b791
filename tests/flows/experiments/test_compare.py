"""Comparison of strategies: specs and widths, the budget, equal work and Pareto fronts, and a small run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from flows.cli.command import app
from flows.cli.compare import split_specs
from flows.cli.errors import InputError
from flows.experiments.bench import Arm, tokens_of
from flows.experiments.compare import (
    EXPERIMENT,
    STRATEGIES,
    answer,
    budget_of,
    enter,
    read_request,
    run_with,
    widened,
)
from flows.experiments.fronts import at_equal_work, front, note
from flows.experiments.running import carried_out, recorded
from flows.profiles.loading import ProfileError
from storage import catalog, runs
from storage.artifacts import Table
from storage.schema import Caption, Finding
from tasks.core.analysis.findings import Findings
from tasks.report.experiment import load_findings, table
from tasks.search.search import CaptionsResult
from tasks.stage.plan import planning
from tests.support.tiny_run import tiny

PROFILE = tiny("evaluate.images=8", "sample.images=16")


# Specs and widths.


@pytest.mark.parametrize(
    ("texts", "specs"),
    [
        (["greedy,visvm"], ["greedy", "visvm"]),
        (["visvm:end=vote,candidates=4,vimar"], ["visvm:end=vote,candidates=4", "vimar"]),
        (["best_of_n:by=value,best_of_n:by=judge", " sample "], ["best_of_n:by=value", "best_of_n:by=judge", "sample"]),
        ([], []),
    ],
)
def test_specs_are_split_at_commas_and_keep_their_settings(texts: list[str], specs: list[str]) -> None:
    assert split_specs(texts) == specs


@pytest.mark.parametrize("text", ["end=vote", "visvm,end=vote"])
def test_a_setting_without_a_strategy_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="NAME:end=vote"):
        split_specs([text])


def test_a_request_holds_specs_budgets_and_tokens() -> None:
    request = read_request(["visvm:end=vote", "budgets=1,4", "tokens=120.5", "greedy"])
    assert request == (["visvm:end=vote", "greedy"], [1, 4], 120.5, True)
    assert read_request(["controls=no"]) == ([], [], None, False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("budgets=1,x", "budgets=1,2,4"),
        ("budgets=1,0", "at least 1"),
        ("tokens=many", "tokens=100"),
        ("tokens=nan", "at least 1"),
        ("tokens=-5", "at least 1"),
        ("tokens=0", "at least 1"),
        ("tokens=inf", "at least 1"),
        ("controls=perhaps", "controls=no"),
    ],
)
def test_budgets_and_tokens_are_numbers(text: str, message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        read_request([text])


def test_a_spec_has_a_search_per_width_and_a_strategy_without_width_a_single_search() -> None:
    assert widened("visvm:end=vote", [4, 1, 4]) == [
        ("visvm:end=vote@1", "visvm:end=vote,candidates=1", 1),
        ("visvm:end=vote@4", "visvm:end=vote,candidates=4", 4),
    ]
    assert widened("greedy", [1, 2]) == [("greedy", "greedy", None)]
    assert widened("best_of_n:candidates=3", [1, 2]) == [("best_of_n:candidates=3", "best_of_n:candidates=3", None)]
    assert widened("stage_beam", [2]) == [("stage_beam@2", "stage_beam:width=2", 2)]
    assert [spec for _, spec, _ in widened("swires", [1, 2, 4])] == ["swires:captions=2", "swires:captions=4"]


def test_the_default_is_every_caption_strategy_at_1_to_16_and_at_the_profiles_candidates() -> None:
    entries = enter(PROFILE)
    controls = {f"visvm:{c}" for c in ("guide=random", "gamma=0", "choose=greedy")} | {
        "vimar:guide=random",
        "vimar:gamma=0",
    }
    assert {entry.name.partition("@")[0] for entry in entries} == set(STRATEGIES) | controls
    assert [entry.name for entry in entries if entry.name.startswith("visvm@")] == [
        f"visvm@{width}" for width in (1, 2, 3, 4, 8, 16)
    ]
    (visvm,) = [entry for entry in enter(PROFILE, ["visvm"], (5,)) if entry.name == "visvm@5"]
    assert visvm.width == 5 and visvm.config == PROFILE.search.model_copy(update={"candidates": 5})


def test_greedy_is_always_the_first_search_and_a_repeated_spec_is_searched_once() -> None:
    entries = enter(PROFILE, ["sample", "greedy", "best_of_n", "best_of_n"], (2,))
    assert [entry.name for entry in entries] == ["greedy", "sample", "best_of_n@2"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [("vizvm", "visvm"), ("visvm:end=never", "vote"), ("visvm:stop=never", "vote"), ("visvm:stop", "key=value")],
)
def test_a_wrong_strategy_is_explained_before_anything_runs(spec: str, message: str, home: Path) -> None:
    with pytest.raises(ProfileError, match=message):
        enter(PROFILE, [spec], (1,))
    result = CliRunner().invoke(app, ["compare", "demo", "--strategies", spec])
    assert result.exit_code == 2 and message in result.stderr
    assert not (home / "runs").exists()


# What runs, from plans.


def planned_searches(values: tuple[str, ...], quick: bool = False) -> list[str]:
    with planning() as plan:
        carried_out("compare", PROFILE, quick, values)
    return [entry.label for entry in plan.entries if entry.stage == "search"]


def test_a_comparison_searches_each_spec_at_each_width(home: Path) -> None:
    values = ("best_of_n", "visvm:end=vote", "budgets=1,3")
    assert planned_searches((*values, "controls=no")) == [
        "greedy", "best_of_n@1", "best_of_n@3", "visvm:end=vote@1", "visvm:end=vote@3"
    ]  # fmt: skip
    assert planned_searches(("visvm:end=vote", "budgets=3", "tokens=100")) == [
        "greedy", "visvm:end=vote@3", "visvm:end=vote,guide=random@3", "visvm:end=vote,gamma=0@3",
        "clip_prm:end=vote@3", "visvm:end=vote,choose=greedy@3", "best_of_n@3", "best_of_n@3",
    ]  # fmt: skip
    assert planned_searches(("best_of_n",), quick=True) == ["greedy", "best_of_n@1", "best_of_n@3"]


def test_all_are_paired_with_greedy_whose_facts_hold_the_budget(home: Path) -> None:
    with planning():
        greedy, *others = run_with(PROFILE, False, ("best_of_n", "budgets=1,3", "tokens=120"))
    assert greedy.facts == {"budget": 120.0} and not greedy.pairs
    assert [(entry.arm, entry.x, set(entry.pairs)) for entry in others] == [
        ("best_of_n@1", 1, {"greedy"}), ("best_of_n@3", 3, {"greedy"})
    ]  # fmt: skip


# The budget, equal work and fronts.

POINTS = (  # arm, decoded tokens per caption, CHAIRi, Recall, milliseconds
    ("greedy", 30, 0.30, 0.99, 100),
    ("best_of_n@1", 30, 0.30, 0.99, 200),
    ("best_of_n@2", 60, 0.20, 0.97, 300),
    ("best_of_n@8", 240, 0.08, 0.98, 400),
    ("visvm@1", 28, 0.09, 0.95, 200),
    ("visvm@2", 55, 0.04, 0.96, 500),
    ("visvm@6", 150, 0.01, 0.96, 900),
)


def findings_of(points: Any = POINTS, budget: float = 150.0) -> Findings:
    rows = [Finding("compare", "greedy", None, 0, "budget", budget, None, None, 8)]
    for arm, *figures in points:
        width = arm.rpartition("@")[2] if "@" in arm else None
        x = None if width is None else float(width)
        for metric, value in zip(("tokens", "chair_i", "recall", "ms"), figures, strict=False):
            rows.append(Finding("compare", arm, x, 0, metric, float(value), None, None, 8))
    return Findings(rows)


@pytest.mark.parametrize(("line", "width", "tokens"), [("visvm", 6, 150), ("visvm", 5, 55), ("vimar", 8, 240)])
def test_the_budget_is_what_visvm_took_at_this_width_or_the_next_smaller_one(
    line: str, width: int, tokens: float
) -> None:
    points = [point for point in POINTS if line == "visvm" or not point[0].startswith("visvm")]
    arms = [Arm(name, float(name.rpartition("@")[2]) if "@" in name else None, None, None) for name, *_ in points]
    counts = [float(count) for _, count, *_ in points]
    assert budget_of(arms, width, counts) == tokens
    assert budget_of(arms[:1], width, counts[:1]) == 30


def test_tokens_are_per_caption_that_was_written_not_per_image_that_was_wanted() -> None:
    captions = Table[Caption](kind="captions", digest="1", rows=9)
    result = CaptionsResult(captions, captions, counters={"decode_tokens": 90})
    assert tokens_of(Arm("greedy", None, result, None)) == 10


def test_the_budget_is_the_smallest_width_where_all_are_larger() -> None:
    arms = [Arm(name, x, None, None) for name, x in (("greedy", None), ("visvm@4", 4.0), ("visvm@8", 8.0))]
    assert budget_of(arms, 2, [30.0, 110.0, 220.0]) == 110


def test_equal_work_is_the_widest_arm_within_the_budget_or_else_the_narrowest() -> None:
    assert at_equal_work(findings_of(budget=150)) == ["greedy", "best_of_n@2", "visvm@6"]
    assert at_equal_work(findings_of(budget=10)) == ["greedy", "best_of_n@1", "visvm@1"]


def test_more_recall_is_better_and_less_chair() -> None:
    findings = findings_of()
    assert front(findings, "chair_i") == ["visvm@1", "visvm@2", "visvm@6"]
    assert set(front(findings, "recall")) == {"visvm@1", "greedy", "best_of_n@1"}
    assert front(findings, "recall", "ms") == ["greedy"]


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=12))
def test_the_front_holds_the_arms_that_none_dominates(pairs: list[tuple[int, int]]) -> None:
    names = ["greedy", *(f"strategy {i}" for i in range(1, len(pairs)))]
    points = [(name, *pair) for name, pair in zip(names, pairs, strict=True)]
    dominated = {
        name
        for name, (tokens, chair) in zip(names, pairs, strict=True)
        if any(t <= tokens and c <= chair and (t, c) != (tokens, chair) for t, c in pairs)
    }
    assert set(front(findings_of(points), "chair_i")) == set(names) - dominated


def test_the_conclusion_names_what_fits_into_the_budget_and_the_fronts() -> None:
    conclusion = answer(findings_of(budget=150))
    assert conclusion.startswith("CHAIRi within 150.0 decoded tokens a caption")
    assert "best_of_n@2 20.0 % for 60.0 tokens; visvm@6 1.0 % for 150.0 tokens." in conclusion
    assert "for CHAIRi: visvm@1, visvm@2 and visvm@6; for Recall: visvm@1" in conclusion
    assert "(over the budget)" not in conclusion
    assert answer(findings_of(budget=29)).count("(over the budget)") == 2  # greedy and best_of_n@1


def test_the_table_shows_what_each_reaches_at_equal_work_and_its_fronts() -> None:
    titles, lines = table(findings_of(budget=150), EXPERIMENT.columns, EXPERIMENT.selection)
    assert titles[-1] == "Pareto front"
    assert [(line[0], line[-1]) for line in lines] == [("greedy", "Recall"), ("best_of_n@2", ""), ("visvm@6", "CHAIRi")]
    assert note(findings_of(budget=10), "visvm@1") == "CHAIRi, Recall, over the budget"


@pytest.mark.slow
def test_a_comparison_is_a_run_that_can_be_repeated_from_the_store(home: Path) -> None:
    values = ("best_of_n", "visvm", "budgets=1,3", "controls=no")
    names = ["greedy", "best_of_n@1", "best_of_n@3", "visvm@1", "visvm@3"]
    run_id, findings, report = recorded("compare", PROFILE, given=values)
    assert findings.arms == names
    # Not under the profile's name: the latest run of a profile has a champion.
    assert (runs.load_run(run_id).profile, runs.load_run(run_id).status) == ("demo experiment compare", "completed")
    assert report.again == (
        "visloop experiment compare --profile demo --with best_of_n --with visvm --with budgets=1,3 --with controls=no"
    )

    captions = f"from captions where run_id = '{run_id}'"
    rows = catalog.query(
        f"select strategy, list(sample_id order by sample_id), avg(decode_tokens) {captions} group by 1"
    )[1]
    samples, tokens = ({row[0]: row[i] for row in rows} for i in (1, 2))
    assert set(samples) == set(names) and len(samples["greedy"]) == 8
    assert all(ids == samples["greedy"] for ids in samples.values())
    assert {name: findings.value(name, "tokens") for name in names} == pytest.approx(tokens)
    assert findings.value("visvm@3", "tokens") > findings.value("visvm@1", "tokens")
    assert findings.value("greedy", "budget") == findings.value("visvm@3", "tokens")
    texts = [
        catalog.query(f"select text {captions} and strategy = '{name}' order by sample_id")[1]
        for name in ("greedy", "best_of_n@1")
    ]
    assert texts[0] == texts[1]
    assert findings.value("best_of_n@1", "chair_i - greedy") == 0
    trace = f"from search_trace where run_id = '{run_id}'"
    ((count, keys),) = catalog.query(
        f"select count(*), count(distinct (sample_id, strategy, step, candidate)) {trace}"
    )[1]
    assert count == keys > 0

    again = recorded("compare", PROFILE, given=values)[0]
    assert {call.cached for call in runs.stage_runs(again)} == {True}
    assert str(load_findings(again).rows) == str(findings.rows)
