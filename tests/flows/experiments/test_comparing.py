"""Strategies compared on a small demo: same images for all, measured work, the tables it fills, the page, the command."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.command import app
from flows.cli.compare import print_comparison, split_specs
from flows.cli.errors import InputError
from flows.experiments.comparison import recorded
from flows.experiments.contenders import STRATEGIES, enter
from flows.profiles.loading import ProfileError
from storage import catalog, runs
from tasks.report.comparison import Comparison, compared, write_comparison
from tests.support.tiny_run import tiny

SPECS = ("best_of_n", "visvm", "vimar:by=score")
NAMES = ["greedy", "best_of_n@1", "best_of_n@3", "visvm@1", "visvm@3", "vimar:by=score@1", "vimar:by=score@3"]
PROFILE = tiny("evaluate.images=8", "sample.images=16")


@pytest.fixture(scope="module")
def run_id(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VISLOOP_HOME", str(tmp_path_factory.mktemp("compared")))
        yield recorded(PROFILE, enter(PROFILE, SPECS, (1, 3)))


def query(sql: str) -> list[tuple]:
    return catalog.query(sql)[1]


def test_every_search_is_a_point_of_the_same_images(run_id: str) -> None:
    assert [point.name for point in compared(run_id).points] == NAMES
    rows = query(
        f"select strategy, list(sample_id order by sample_id) from captions where run_id = '{run_id}' group by 1"
    )
    assert {name for name, _ in rows} == set(NAMES)
    assert len({tuple(samples) for _, samples in rows}) == 1 and len(rows[0][1]) == 8


def test_the_tables_hold_each_row_once_by_strategy_and_width(run_id: str) -> None:
    for table, column in (("captions", "strategy"), ("search_trace", "strategy"), ("metrics", "decoding")):
        found = {name for (name,) in query(f"select distinct {column} from {table} where run_id = '{run_id}'")}
        assert found >= set(NAMES), table
    ((rows, keys),) = query(
        f"select count(*), count(distinct (sample_id, strategy, step, candidate)) from search_trace where run_id = '{run_id}'"
    )
    assert rows == keys > 0


def test_work_is_what_the_trace_and_the_clock_say(run_id: str) -> None:
    drawn = dict(query(f"select strategy, avg(decode_tokens) from captions where run_id = '{run_id}' group by 1"))
    for point in compared(run_id).points:
        assert point.tokens == pytest.approx(drawn[point.name])
        assert 0 < point.seconds < 10 and not point.cached
    one, three = (next(p for p in compared(run_id).points if p.name == f"visvm@{k}") for k in (1, 3))
    assert three.tokens > one.tokens


def test_one_candidate_of_best_of_n_is_the_greedy_caption(run_id: str) -> None:
    texts = [
        query(f"select text from captions where run_id = '{run_id}' and strategy = '{name}' order by sample_id")
        for name in ("greedy", "best_of_n@1")
    ]
    assert texts[0] == texts[1]


def test_all_are_paired_with_greedy(run_id: str) -> None:
    points = compared(run_id).points
    assert points[0].changes == {} and all(point.changes.keys() >= {"chair_i", "recall"} for point in points[1:])
    assert points[1].changes["chair_i"].value == 0  # best_of_n@1


def test_the_budget_is_the_profiles_own_search_unless_another_is_given(run_id: str) -> None:
    found = compared(run_id)
    visvm = next(point for point in found.points if point.name == "visvm@3")
    assert found.budget == visvm.tokens and visvm in found.equal
    assert [point.spec for point in found.equal] == ["greedy", *SPECS]
    least = compared(run_id, tokens=1.0)
    assert [point.width for point in least.equal] == [None, 1, 1, 1]


def test_again_nothing_is_searched_and_the_seconds_are_those_that_were_measured(run_id: str) -> None:
    again = recorded(PROFILE, enter(PROFILE, SPECS, (1, 3)))
    assert {call.cached for call in runs.stage_runs(again)} == {True}
    first, second = compared(run_id), compared(again)
    assert [p.seconds for p in first.points] == [p.seconds for p in second.points]
    assert all(point.cached for point in second.points)
    assert "7 of 7 searches were answered from the store" in (runs.run_folder(again) / "comparison.html").read_text()


def test_it_is_no_run_of_the_profile_for_a_champion_is_not_among_it(run_id: str) -> None:
    assert runs.load_run(run_id).profile == "demo compare"
    assert runs.load_run(run_id).status == "completed"


def test_the_page_needs_nothing_but_itself_and_has_every_point(run_id: str) -> None:
    page = write_comparison(run_id).read_text(encoding="utf-8")
    assert re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', page) == [] and "<script" not in page
    assert page.count("<svg role=") == 3
    assert page.count("<tr><td>") == len(NAMES) + 4
    assert len(re.findall(r">vimar:by=score<", page)) == 2 * 3 + 3  # a panel each, and three lines of tables


def test_a_failed_comparison_has_a_page_that_says_so(home: Path) -> None:
    failed = runs.start_run("demo compare", PROFILE.model_dump_json())
    runs.finish_run(failed, "failed", message="no images")
    assert compared(failed) == Comparison([], 0.0, [], {})
    assert "no images" in write_comparison(failed).read_text(encoding="utf-8")


def test_the_table_names_strategy_width_and_front(run_id: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_comparison(compared(run_id))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["strategy", "K"]
    assert [line.split()[0] for line in lines[1:5]] == ["greedy", *SPECS]
    assert any(line.split()[-1] in ("CHAIRi", "Recall") for line in lines[1:5])


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (["greedy,visvm"], ["greedy", "visvm"]),
        (["visvm:stop=vote,candidates=4,vimar"], ["visvm:stop=vote,candidates=4", "vimar"]),
        (["best_of_n:by=value,best_of_n:by=judge", " sample "], ["best_of_n:by=value", "best_of_n:by=judge", "sample"]),
        ([], []),
    ],
)
def test_specs_are_parted_at_commas_and_keep_their_settings(given: list[str], wanted: list[str]) -> None:
    assert split_specs(given) == wanted


@pytest.mark.parametrize("given", ["stop=vote", "visvm,stop=vote"])
def test_a_setting_without_a_strategy_is_refused(given: str) -> None:
    with pytest.raises(InputError, match="NAME:stop=vote"):
        split_specs([given])


def test_what_is_left_out_is_all_that_suits_captions_at_1_to_16_and_the_profiles_own() -> None:
    names = [one.name for one in enter(PROFILE)]
    assert {name.partition("@")[0] for name in names} == set(STRATEGIES)
    assert [name for name in names if name.startswith("visvm")] == [f"visvm@{k}" for k in (1, 2, 3, 4, 8, 16)]
    (visvm,) = [one for one in enter(PROFILE, ["visvm"], (5,)) if one.name == "visvm@5"]
    assert visvm.config == PROFILE.search.model_copy(update={"candidates": 5})


@pytest.mark.parametrize(
    ("spec", "message"), [("vizvm", "visvm"), ("visvm:stop=never", "vote"), ("visvm:stop", "key=value")]
)
def test_a_wrong_strategy_is_explained_before_anything_runs(spec: str, message: str, home: Path) -> None:
    with pytest.raises(ProfileError, match=message):
        enter(PROFILE, [spec], (1,))
    result = CliRunner().invoke(app, ["compare", "demo", "--strategies", spec])
    assert result.exit_code == 2 and message in result.stderr
    assert not (home / "runs").exists()


def test_budgets_are_numbers(home: Path) -> None:
    result = CliRunner().invoke(app, ["compare", "demo", "--budgets", "1,0"])
    assert result.exit_code == 2 and "at least 1" in result.stderr


def test_the_command_runs_the_flow_and_prints_the_table_and_the_pages_path(
    run_id: str, prefect_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The searches are in the store already: the flow finds them there."""
    monkeypatch.setattr("flows.cli.compare.load", lambda name, overrides: PROFILE)
    result = CliRunner().invoke(app, ["compare", "demo", "--strategies", ",".join(SPECS), "--budgets", "1,3"])
    assert result.exit_code == 0, result.output
    assert "7 of 7 searches, and their seconds, are of earlier runs" in result.output
    page = Path(result.output.strip().splitlines()[-1].partition("plots ")[2])
    assert page.is_file() and json.loads(runs.load_run(page.parent.name).config)["name"] == "demo"
