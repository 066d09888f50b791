"""The command: every help has an example, every error says what to do, tables come out in every format."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

sys.path.insert(0, str(Path(__file__).parent.parent / "tasks"))
from made_run import make_run

from flows.command import app
from storage.schema import ROW_TYPES

COMMANDS = [command.name for command in app.registered_commands]


@pytest.fixture(scope="module")
def run_id(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VISLOOP_HOME", str(tmp_path_factory.mktemp("store")))
        yield make_run()


def visloop(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(app, list(arguments))


def refused(*arguments: str) -> str:
    """The message of a command that does not accept what it got."""
    result = visloop(*arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return result.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_has_an_example_that_names_it(command: str) -> None:
    result = visloop(command, "--help")
    assert result.exit_code == 0
    examples = result.output.partition("Examples:")[2]
    assert f"visloop {command}" in examples


@pytest.mark.parametrize("command", COMMANDS)
def test_every_example_in_a_help_parses(command: str) -> None:
    """Each option an example uses is an option of that command."""
    text = visloop(command, "--help").output
    examples = [line.strip() for line in text.splitlines() if line.strip().startswith(f"visloop {command} ")]
    known = set(re.findall(r"(?<=[\s,])--?[a-z][a-z-]*", text.partition("Options:")[2]))
    for example in examples:
        used = {word for word in shlex.split(example) if word.startswith("-")}
        assert used <= known, example


def test_all_commands_of_the_plan_are_there() -> None:
    assert set(COMMANDS) == {
        "run", "demo", "plan", "runs", "show", "tables", "query", "caption", "report", "make-demo-data", "doctor",
        "verify", "gc",
    }  # fmt: skip


def test_the_help_imports_nothing_heavy_and_comes_at_once() -> None:
    code = (
        "import sys, flows.command\n"
        "print(sorted({'torch', 'prefect', 'duckdb', 'transformers', 'matplotlib', 'pyarrow'} & set(sys.modules)))"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert time.monotonic() - began < 5  # 0.3 s on an idle machine; this one may be busy


def test_query_speaks_four_formats(run_id: str, tmp_path: Path) -> None:
    sql = "select subject, metric, value, stderr from metrics where benchmark = 'chair' order by all limit 3"
    table = visloop("query", sql).output.splitlines()
    assert table[0].split() == ["subject", "metric", "value", "stderr"] and len(table) == 4
    rows = json.loads(visloop("query", sql, "--format", "json").output)
    assert rows[0] == {"subject": "base", "metric": "chair_i", "value": 0.1, "stderr": 0.015}
    assert len(list(csv.DictReader(io.StringIO(visloop("query", sql, "--format", "csv").output)))) == 3
    path = tmp_path / "out.parquet"
    assert visloop("query", sql, "--format", "parquet", "-o", str(path)).exit_code == 0
    assert pq.read_table(path).num_rows == 3


def test_json_has_no_nan_and_no_raw_bytes(run_id: str) -> None:
    output = visloop("query", "select 'nan'::double as x, image from images limit 1", "--format", "json").output
    (row,) = json.loads(output)
    assert row["x"] is None and isinstance(row["image"]["bytes"], str)


@pytest.mark.parametrize(
    "sql", ["drop table runs", "copy metrics to 'x.csv'", "select 1; select 2", "select * from read_csv('/etc/passwd')"]
)
def test_query_only_reads_and_only_the_store(run_id: str, sql: str) -> None:
    assert "tables: images, annotations" in refused("query", sql)


def test_a_wrong_query_is_explained_with_the_tables_there_are(run_id: str) -> None:
    text = refused("query", "select * from metrcs")
    assert 'Did you mean "metrics"' in text and all(table in text for table in ROW_TYPES)
    assert "did you mean json?" in refused("query", "select 1", "--format", "jsn")


def test_tables_lists_every_table_and_a_tables_columns(run_id: str) -> None:
    listed = visloop("tables").output
    assert all(re.search(rf"^{table} ", listed, re.MULTILINE) for table in ROW_TYPES)
    assert "the estimate" in visloop("tables", "metrics").output
    assert "did you mean metrics?" in refused("tables", "metric")


@pytest.mark.parametrize("how", ["latest", "the id", "a beginning"])
def test_a_run_is_named_by_latest_its_id_or_a_beginning(run_id: str, how: str) -> None:
    name = {"latest": "latest", "the id": run_id, "a beginning": run_id[:-2]}[how]
    output = visloop("show", name).output
    assert run_id in output
    assert "round 1, greedy" in output and "28.0 (22.0 to 34.0)" in output and "promoted" in output


def test_a_run_that_is_not_there_is_explained(run_id: str) -> None:
    assert f"the newest is {run_id}" in refused("show", "zzz")
    assert f"did you mean {run_id}?" in refused("show", run_id[:-4] + "0000")


def test_runs_lists_them_and_report_prints_a_path(run_id: str) -> None:
    assert run_id in visloop("runs").output
    assert Path(visloop("report", "latest").output.strip()).is_file()


def test_an_empty_store_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISLOOP_HOME", str(tmp_path / "none"))
    assert "visloop run demo" in visloop("runs").output
    assert "visloop run demo" in refused("show", "latest")


def test_a_wrong_profile_or_setting_ends_before_anything_runs() -> None:
    assert "did you mean demo?" in refused("run", "dmo")
    assert "did you mean search.candidates?" in refused("demo", "--set", "search.candidats=4")
    assert "rounds" in refused("plan", "demo", "--rounds", "0")
    assert "did you mean visvm?" in refused("caption", __file__, "--strategy", "vizvm")


def test_verify_and_gc_say_what_they_found(run_id: str) -> None:
    assert "all whole" in visloop("verify").output
    assert visloop("gc", "--dry-run").output.startswith("would remove 0 runs")


def test_verify_fails_on_a_damaged_artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISLOOP_HOME", str(tmp_path))
    make_run()
    victim = next(iter(sorted((tmp_path / "objects").glob("*/*.parquet"))))
    victim.chmod(0o644)
    victim.write_bytes(victim.read_bytes()[:-1] + b"?")
    result = visloop("verify")
    assert result.exit_code == 1 and "damaged:" in result.output


def test_an_error_of_ours_is_short_and_debug_shows_where(run_id: str) -> None:
    script = [sys.executable, "-m", "flows.command", "plan", "dmo"]
    quiet = subprocess.run(script, capture_output=True, text=True, check=False)
    loud = subprocess.run([*script, "--debug"], capture_output=True, text=True, check=False, env={**os.environ})
    assert (quiet.returncode, loud.returncode) == (2, 2)
    assert "Traceback" not in quiet.stderr and "Traceback" in loud.stderr


def test_make_demo_data_writes_what_it_says(tmp_path: Path) -> None:
    output = visloop("make-demo-data", str(tmp_path / "scenes"), "--images", "20").output
    assert "train" in output and len(list((tmp_path / "scenes").rglob("*.png"))) == 20
