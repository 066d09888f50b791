"""The whole loop, small, as a Prefect flow: what it leaves, what it does again, what a change touches."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from storage import catalog, runs
from storage.schema import StageRun
from tasks.stage.plan import planning
from tests.support.tiny_run import calls, computed, digests, in_process, tiny

SHARDED = ("runtime.shards=4", "runtime.batch_size=16")
ISSUE_QUERY = """
    select round, decoding, metric, value, ci_low, ci_high from metrics where benchmark='chair' order by all
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, prefect_server: str) -> Path:
    return tmp_path_factory.mktemp("loop") / "store"


@pytest.fixture(autouse=True)
def _in_that_store(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISLOOP_HOME", str(store))


@pytest.fixture(scope="module")
def first(store: Path) -> str:
    """The id of a finished run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VISLOOP_HOME", str(store))
        return flow_run()


def flow_run(*overrides: str, rounds: int = 1) -> str:
    from flows.self_training import self_training

    return self_training(tiny(*SHARDED, *overrides, rounds=rounds)).run_id


def by_stage(run_id: str) -> dict[str, list[StageRun]]:
    grouped: dict[str, list[StageRun]] = {}
    for call in calls(run_id):
        grouped.setdefault(call.stage, []).append(call)
    return grouped


def test_a_run_completes_and_leaves_a_report(first: str) -> None:
    run = runs.load_run(first)
    assert (run.status, run.rounds) == ("completed", 1)
    assert run.champion in ("base", "round-1")
    report = runs.run_folder(first) / "report.html"
    assert "round-1" in report.read_text()
    stages = by_stage(first)
    assert stages.keys() >= {
        "sample", "annotate", "rollout", "score", "shape_rewards", "train_value", "search", "finetune", "evaluate", "compare",
        "health", "promote",
    }  # fmt: skip
    assert not any(call.cached for call in calls(first))
    assert {call.round for call in stages["finetune"]} == {1}


def test_the_catalog_answers_the_question_of_the_first_day(first: str) -> None:
    columns, rows = catalog.query(ISSUE_QUERY)
    assert columns == ["round", "decoding", "metric", "value", "ci_low", "ci_high"]
    assert {(row[0], row[1]) for row in rows} == {(0, "greedy"), (1, "greedy"), (1, "visvm")}
    assert {row[2] for row in rows} == {"chair_s", "chair_i", "recall", "length"}
    assert len(rows) == 12
    assert all(low <= value <= high for *_, value, low, high in rows)
    json.dumps(rows)


def test_every_table_holds_each_row_once(first: str) -> None:
    for table, key in (
        ("images", "image_id"), ("samples", "sample_id"), ("rollouts", "rollout_id"), ("rewards", "rollout_id, step"),
        ("captions", "sample_id, policy, strategy"), ("values", "rollout_id, step"),
        ("metrics", "round, subject, decoding, benchmark, metric"), ("decisions", "candidate"),
    ):  # fmt: skip
        ((rows, keys),) = catalog.query(
            f"select count(*), count(distinct ({key})) from \"{table}\" where run_id = '{first}'"
        )[1]
        assert 0 < rows == keys, table


def test_rows_in_are_rows_out_and_quarantined(first: str) -> None:
    def count(sql: str) -> int:
        return catalog.query(sql.format(run=f"run_id = '{first}'"))[1][0][0]

    drawn = count("select count(*) from samples where round = 1 and {run}")
    assert drawn == 24
    assert count("select count(*) from rollouts where round = 1 and {run}") == 2 * drawn
    assert count("select count(distinct rollout_id) from rewards where round = 1 and {run}") == 2 * drawn - count(
        "select count(*) from quarantine where round = 1 and stage = 'score' and {run}"
    )
    assert count("select count(*) from captions where round = 1 and strategy = 'visvm' and {run}") == drawn + 20


def test_the_same_run_again_computes_nothing_and_gives_the_same(first: str) -> None:
    again = flow_run()
    assert computed(again) == []
    assert digests(again) == digests(first)
    assert runs.load_run(again).champion == runs.load_run(first).champion


def test_a_plan_of_it_shows_that_nothing_would_run(first: str) -> None:
    from flows.self_training import plan

    with planning() as planned:
        plan(tiny(*SHARDED))
    assert {entry.action for entry in planned.entries} == {"cached"}


def test_how_fast_is_not_what(first: str) -> None:
    again = flow_run("runtime.batch_size=5", "value.checkpoint_steps=100", "finetune.checkpoint_steps=50")
    assert computed(again) == []


def test_another_search_runs_the_search_and_what_follows_only(first: str) -> None:
    changed = flow_run("search.candidates=2")
    stages = {(stage, label) for _, stage, label, _ in computed(changed)}
    follows = {"search", "gather", "finetune", "evaluate", "drift", "compare", "promote"}
    assert {stage for stage, _ in stages} <= follows
    assert {("search", ""), ("finetune", "")} <= stages
    assert not any(label.startswith("base greedy") for _, label in stages)


def test_a_wild_folder_runs_through_with_its_bad_files_in_quarantine(first: str, tmp_path: Path) -> None:
    from tasks.stage.quarantine import TooManyQuarantined
    from tests.support.wild_folder import GOOD, wild_folder

    root = wild_folder(tmp_path / "wild")
    wild = ("data.train.kind=folder", f"data.train.root={root}", f"sample.images={GOOD + 6}")
    with pytest.raises(TooManyQuarantined, match="4 of 20 images were refused"):
        flow_run(*wild)
    assert runs.latest_run().status == "failed"
    assert "4 of 20 images" in runs.latest_run().message
    run_id = flow_run(*wild, "sample.max_quarantined=0.5")
    assert runs.load_run(run_id).status == "completed"
    _, rows = catalog.query(
        f"select item_id, reason from quarantine where run_id = '{run_id}' and stage = 'sample' order by all"
    )
    assert rows == [
        ("dot.png", "too_small"), ("huge.png", "too_large"), ("text.png", "unreadable"), ("truncated.jpg", "unreadable"),
    ]  # fmt: skip
    ((images,),) = catalog.query(f"select count(*) from images where run_id = '{run_id}' and round = 1")[1]
    assert images + len(rows) == GOOD + 6


def test_a_failed_health_check_stops_the_run_before_any_round(first: str) -> None:
    from flows.round.improvement import HealthCheckFailed

    with pytest.raises(HealthCheckFailed, match=r"recall 0\.\d+ is outside \[1, 1\].* or health\.action=warn to go on"):
        flow_run("health.min_recall=1", "health.action=stop")
    run = runs.latest_run()
    assert run.status == "failed"
    assert {call.round for call in calls(run.run_id)} == {0}


def test_a_rejected_round_stops_the_run_and_the_champion_stays(first: str) -> None:
    run = runs.load_run(flow_run("finetune.lr=1e-9", rounds=3))
    assert (run.status, run.rounds, run.champion) == ("completed", 1, "base")
    assert run.message.startswith("stopped after round 1: round-1 against base: rejected: chair_i +0.000")
    ((promoted, reason),) = catalog.query(f"select promoted, reason from decisions where run_id = '{run.run_id}'")[1]
    assert not promoted
    assert reason in run.message


@pytest.mark.slow
def test_one_shard_and_one_image_at_a_time_give_what_four_shards_of_sixteen_give(first: str, tmp_path: Path) -> None:
    together = captions_of(first)
    assert len(together) == 24 + 3 * 20
    home = tmp_path / "alone"
    assert in_process(home, "runtime.shards=1", "runtime.batch_size=1") == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VISLOOP_HOME", str(home))
        assert captions_of(runs.latest_run().run_id) == together


def captions_of(run_id: str) -> list[tuple[str, ...]]:
    wanted = f"select sample_id, policy, strategy, text from captions where run_id = '{run_id}' order by all"
    return catalog.query(wanted)[1]
