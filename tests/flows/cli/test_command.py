"""The command: every help has an example, every error states what to do, tables come out in every format."""

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

from flows.cli.command import app
from flows.describe import find_images
from storage.schema import ROW_TYPES
from tests.support.made_captions import FakeSearcher, draw, guided, revised
from tests.support.made_run import make_run

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
        "run", "demo", "plan", "init", "compare", "experiment", "runs", "show", "tables", "query", "caption", "report",
        "make-demo-data", "doctor",
        "verify", "gc",
    }  # fmt: skip


def test_the_help_imports_nothing_heavy_and_comes_at_once() -> None:
    code = (
        "import sys, flows.cli.command\n"
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
    assert "did you mean demo?" in refused("caption", __file__, "--profile", "dmo")


def test_verify_and_gc_print_their_results(run_id: str) -> None:
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
    script = [sys.executable, "-m", "flows.cli.command", "plan", "dmo"]
    quiet = subprocess.run(script, capture_output=True, text=True, check=False)
    loud = subprocess.run([*script, "--debug"], capture_output=True, text=True, check=False, env={**os.environ})
    assert (quiet.returncode, loud.returncode) == (2, 2)
    assert "Traceback" not in quiet.stderr and "Traceback" in loud.stderr


def test_make_demo_data_writes_what_it_announces(tmp_path: Path) -> None:
    output = visloop("make-demo-data", str(tmp_path / "scenes"), "--images", "20").output
    assert "train" in output and len(list((tmp_path / "scenes").rglob("*.png"))) == 20


@pytest.fixture
def pictures(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of three images on two levels, beside a text and a hidden image; searches find what is invented."""
    monkeypatch.setattr("tasks.search.caption.Searcher", FakeSearcher)
    monkeypatch.setattr(FakeSearcher, "made", [])
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "pictures", ["b.png", "deep/er/a.JPG", "c.webp", ".hidden.png"], size=(60, 40))
    (tmp_path / "pictures" / "notes.txt").write_text("no image")
    return tmp_path / "pictures"


def test_a_folder_is_searched_through_all_levels_and_no_image_comes_twice(pictures: Path, tmp_path: Path) -> None:
    inside = [pictures / name for name in ("b.png", "c.webp", "deep/er/a.JPG")]
    assert find_images([pictures]) == inside
    assert find_images([inside[1], pictures, inside[0]]) == [inside[1], inside[0], inside[2]]
    (tmp_path / "empty").mkdir()
    assert "no images in this folder" in refused("caption", str(tmp_path / "empty"))


def test_caption_prints_a_line_an_image_and_names_what_it_could_not_read(pictures: Path) -> None:
    (pictures / "d.png").write_bytes(b"no image")
    result = visloop("caption", str(pictures))
    assert result.stdout.splitlines()[0] == f"{pictures}/b.png: {guided().text}" and result.stdout.count("\n") == 4
    assert result.exit_code == 2 and "d.png: no image format" in result.stderr
    assert "1 of 4 images could not be read" in result.stderr
    assert not Path("explain.html").exists()


def test_caption_takes_settings_from_set_candidates_and_the_strategy(pictures: Path) -> None:
    more = ["--set", "search.max_sentences=3", "--set", "seed=5", "--candidates", "9"]
    assert visloop("caption", str(pictures / "b.png"), "--strategy", "vimar:by=score", *more).exit_code == 0
    assert visloop("caption", str(pictures / "b.png"), "--strategy", "clip_prm:candidates=4", *more).exit_code == 0
    (vimar, _, guides, seeded), (clip_prm, *_) = FakeSearcher.made
    assert (vimar.strategy, vimar.by, vimar.candidates, vimar.max_sentences) == ("vimar", "score", 9, 3)
    assert (clip_prm.strategy, clip_prm.candidates, clip_prm.max_sentences) == ("clip_prm", 4, 3)
    assert guides.scorer is not None and seeded["seed"] == 5


def test_a_wrong_setting_of_a_strategy_is_explained_before_a_model_is_loaded(pictures: Path) -> None:
    image = str(pictures / "b.png")
    assert "at least 1 and at most 256" in refused("caption", image, "--strategy", "vimar:candidates=none")
    assert "key=value" in refused("caption", image, "--strategy", "vimar:candidates")
    assert "add --explain" in refused("caption", image, "--output", "shown")
    assert FakeSearcher.made == []


def test_explain_prints_every_candidate_marks_the_chosen_ones_and_writes_a_page(pictures: Path) -> None:
    result = visloop("caption", str(pictures), "--strategy", "visvm:candidates=3", "--explain")
    lines = result.output.splitlines()
    assert result.exit_code == 0
    assert sum(line.startswith("  * T ") for line in lines) == 6 and "  step 2, refine" in lines
    assert "  * T 0.000  value  0.604  score  0.312  A red car waits at a crossing" in result.output
    assert "    stop: reward: no candidate's score reached the margin" in lines
    assert lines[-1] == "how each caption was found: explain.html"
    page = Path("explain.html").read_text(encoding="utf-8")
    assert page.count("<article") == 3 and "visvm:candidates=3" in page and "deployments/demo/policy" in page


def test_json_has_the_trace_with_explain_and_nothing_else_on_standard_output(pictures: Path) -> None:
    image = str(pictures / "b.png")
    (plain,) = json.loads(visloop("caption", image, "--format", "json").stdout)
    assert plain["text"] == guided().text and "trace" not in plain
    result = visloop("caption", str(pictures), "--format", "json", "--explain", "-o", "shown")
    traces = [caption["trace"] for caption in json.loads(result.stdout)]
    assert [row["text"] for row in traces[2]] == [row.proposal.text for row in revised().trace]
    assert "shown/explain.html" in result.stderr and Path("shown/explain.html").is_file()


def test_a_terminal_gets_a_tree(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    output = visloop("caption", str(pictures / "b.png"), "--explain").output
    assert "├── " in output and "└── " in output and "✓ T 0.000" in output
