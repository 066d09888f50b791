"""SQL over all runs: every row once for each run and round, and nothing but reading."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from storage import catalog, lake, runs
from storage.catalog import NotAQuery, query, query_arrow
from storage.schema import ROW_TYPES, Annotation, Image, ImageFile, Metric, Run, Sample, StageRun, arrow_schema
from tests.support.paths import ROOT
from tests.support.stage_records import called

pytestmark = pytest.mark.usefixtures("home")


SAMPLES = [Sample(f"s{i}", f"i{i}", "p", "train") for i in range(4)]


def test_tables_without_rows_have_their_columns() -> None:
    connection = catalog.connect()
    for name, row_type in ROW_TYPES.items():
        columns, rows = query(f"SELECT * FROM {name}", connection)
        extra = [] if row_type in (Run, StageRun) else ["run_id", "round"]
        assert columns == [*extra, *arrow_schema(row_type).names]
        assert rows == []


def test_an_empty_view_has_the_types_of_a_full_one() -> None:
    empty = query("DESCRIBE images")
    run_id = runs.start_run("demo", "{}")
    ref = lake.publish(Image, [Image("i", ImageFile(b"x", None), 1, 1, "0", "s", "train")])
    runs.record_stage(called(run_id, 1, None, ref))
    assert query("DESCRIBE images") == empty
    assert query("SELECT octet_length(image.bytes) FROM images") == (["octet_length(image.bytes)"], [(1,)])


def test_an_artifact_shows_once_for_each_run_and_round_and_shards_do_not() -> None:
    whole, piece = lake.publish(Sample, SAMPLES), lake.publish(Sample, SAMPLES[:2])
    first, second = (runs.start_run("demo", "{}") for _ in range(2))
    for call in (
        called(first, 1, 0, piece),
        called(first, 1, None, whole),
        called(first, 1, None, whole, stage="again"),
        called(first, 2, None, whole),
        called(second, 1, None, whole),
    ):
        runs.record_stage(call)
    runs.finish_run(first, "completed", rounds=2)
    _, rows = query("SELECT run_id, round, count(*) FROM samples GROUP BY ALL")
    assert sorted(rows) == sorted([(first, 1, 4), (first, 2, 4), (second, 1, 4)])
    assert query("SELECT count(*) FROM stages")[1] == [(5,)]
    assert query("SELECT status FROM runs ORDER BY status")[1] == [("completed",), ("running",)]
    assert query_arrow("FROM samples WHERE round = 2").num_rows == 4


def test_a_file_that_is_gone_hides_only_its_own_rows() -> None:
    run_id = runs.start_run("demo", "{}")
    refs = [lake.publish(Sample, SAMPLES[:1]), lake.publish(Sample, SAMPLES[1:])]
    runs.record_stage(called(run_id, 1, None, *refs))
    refs[0].path.unlink()
    assert query("SELECT count(*) FROM samples")[1] == [(3,)]


def test_numbers_that_are_not_a_number_stay_so() -> None:
    run_id = runs.start_run("demo", "{}")
    metric = Metric("base", "greedy", "chair", "chair_i", 0.2, float("nan"), 0.1, 0.3, 1)
    runs.record_stage(called(run_id, 0, None, lake.publish(Metric, [metric])))
    assert query("SELECT isnan(stderr), round FROM metrics")[1] == [(True, 0)]


@pytest.mark.parametrize(
    "sql",
    [
        "DROP VIEW images",
        "INSERT INTO runs SELECT * FROM runs",
        "SELECT 1; SELECT 2",
        "",
        "COPY (SELECT 1) TO 'x.csv'",
        "EXPLAIN ANALYZE SELECT 1",
        "ATTACH 'x.db'",
        "INSTALL httpfs",
        "SET threads = 1",
        "CALL duckdb_settings()",
    ],
)
def test_only_one_statement_that_reads_is_accepted(sql: str) -> None:
    with pytest.raises(NotAQuery):
        query(sql)


@pytest.mark.parametrize("sql", ["FROM runs", "DESCRIBE runs", "SUMMARIZE runs", "SHOW TABLES", "EXPLAIN SELECT 1",
                                 "WITH a AS (SELECT 1) FROM a"])  # fmt: skip
def test_every_way_to_read_is_accepted(sql: str) -> None:
    query(sql)


def test_files_outside_the_store_can_not_be_read_or_written(tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("a\n1\n")
    connection = catalog.connect()
    for sql in (
        f"FROM '{tmp_path}/secret.csv'",
        f"FROM read_csv('{tmp_path}/secret.csv')",
        f"FROM glob('{tmp_path}/*')",
        f"COPY (SELECT 1) TO '{tmp_path}/out.csv'",
        f"ATTACH '{tmp_path}/x.db'",
        "SET enable_external_access = true",
    ):
        with pytest.raises(duckdb.Error):
            connection.execute(sql)


def test_the_run_of_a_killed_process_does_not_stay_running() -> None:
    script = (
        "import os, signal\nfrom storage import runs\nfrom tasks.stage.calls import run_recording\n"
        "with run_recording(runs.start_run('demo', '{}')):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = ROOT
    killed = subprocess.run([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(root)}, check=False)
    assert killed.returncode == -9
    run = runs.latest_run()
    assert run is not None
    assert (run.status, run.message) == ("failed", "its process ended before the run did (killed?)")
    assert query("SELECT status FROM runs")[1] == [("failed",)]


def test_an_unknown_run_is_an_error_that_says_where_to_look() -> None:
    with pytest.raises(runs.NoSuchRun, match="visloop runs"):
        runs.load_run("none")
    assert runs.latest_run() is None


def test_finishing_a_run_joins_its_records_and_loses_none() -> None:
    run_id = runs.start_run("demo", "{}")
    calls = [called(run_id, i, None, key=str(i)) for i in range(5)]
    for call in calls:
        runs.record_stage(call)
    runs.finish_run(run_id, "failed", message="why")
    assert len(list((runs.run_folder(run_id) / "stages").iterdir())) == 1
    assert runs.stage_runs(run_id) == calls
    runs.record_stage(called(run_id, 9, None))
    assert len(runs.stage_runs(run_id)) == 6


def test_annotations_can_be_looked_at_by_people() -> None:
    run_id = runs.start_run("demo", "{}")
    runs.record_stage(called(run_id, 0, None, lake.publish(Annotation, [Annotation("i", ["cat"], [], [])])))
    assert query("SELECT objects FROM annotations")[1] == [(["cat"],)]


def test_rows_on_the_way_to_a_table_are_not_shown_in_it() -> None:
    run_id = runs.start_run("demo", "{}")
    ref = lake.publish(Sample, [Sample("s1", "i1", "Describe it.", "train")])
    runs.record_stage(called(run_id, 1, None, ref, outputs=json.dumps({"part": ref.model_dump()})))
    assert catalog.query("SELECT count(*) FROM samples")[1] == [(0,)]
