"""What is computed once, what again, and what is logged about it."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from storage import lake, runs
from storage.lake import AnnotationsForbidden
from storage.records import all_records
from tasks.stage.calls import carry_out, in_round, run_recording
from tasks.stage.quarantine import StageInputError
from tasks.stage.runtime import RuntimeConfig, use_runtime
from tasks.stage.shards import Shard
from tests.support import toy_stages as toy
from tests.support.paths import ROOT
from tests.support.toy_stages import Config, computed

pytestmark = pytest.mark.usefixtures("home")

R = TypeVar("R")
ALL = ["draw", "grow0of3", "grow1of3", "grow2of3", "count"]


def newly(before: list[str]) -> list[str]:
    return computed()[len(before) :]


def test_a_second_run_computes_nothing() -> None:
    first = toy.loop(Config())
    assert computed() == ALL
    assert toy.loop(Config()) == first
    assert computed() == ALL


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({"batch_size": 64}, []),
        ({"word": "b"}, ["grow0of3", "grow1of3", "grow2of3", "count"]),
        ({"n": 8}, ["draw", "grow0of3", "grow1of3", "grow2of3", "count"]),
    ],
)
def test_only_what_depends_on_a_change_runs_again(change: dict[str, object], again: list[str]) -> None:
    toy.loop(Config())
    before = computed()
    toy.loop(Config(**change))
    assert newly(before) == again


def test_label_and_runtime_are_not_in_the_key() -> None:
    samples = toy.draw.with_label("first")(Config()).samples
    toy.grow.with_label("a")(Config(), samples)
    before = computed()
    toy.draw.with_label("second")(Config())
    with use_runtime(RuntimeConfig(device="cpu", batch_size=3)):
        toy.grow.with_label("b")(Config(), samples)
    assert newly(before) == []


def test_an_input_computed_again_to_the_same_result_stops_the_change() -> None:
    toy.loop(Config())
    for path, record in all_records():
        if record and record.identity["stage"] == "draw":
            path.unlink()
    before = computed()
    toy.loop(Config())
    assert newly(before) == ["draw"]


@pytest.mark.parametrize("damage", ["gone", "flipped", "cut"])
def test_a_damaged_artifact_is_computed_again_and_the_log_has_the_reason(
    damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = toy.grow(Config(), toy.draw(Config()).samples).samples.path
    whole = path.read_bytes()
    data = bytearray(whole)
    path.unlink()
    if damage == "flipped":
        data[50] ^= 255
        path.write_bytes(data)
    if damage == "cut":
        path.write_bytes(data[:-10])
    before = computed()
    with caplog.at_level(logging.WARNING):
        again = toy.grow(Config(), toy.draw(Config()).samples)
    assert newly(before) == ["grow0of1"]
    assert str(path) in caplog.text
    assert caplog.text.count("computing it again") == 1
    assert again.samples.path == path
    assert path.read_bytes() == whole


def test_a_truncated_record_is_a_miss() -> None:
    toy.draw(Config())
    ((path, _),) = all_records()
    path.write_text(path.read_text()[:40])
    toy.draw(Config())
    assert computed() == ["draw", "draw"]


def in_shards(n: int, call: Callable[[], R]) -> R:
    with use_runtime(RuntimeConfig(shards=n)):
        return call()


def test_the_number_of_shards_changes_no_digest() -> None:
    samples = toy.draw(Config()).samples
    outputs = [in_shards(n, lambda: toy.grow.over_shards(Config(), samples)) for n in (1, 2, 3, 50)]
    assert len({output.samples.digest for output in outputs}) == 1
    assert outputs[0].samples == toy.grow(Config(), samples).samples
    assert [output.counters for output in outputs] == [{"rows": 7}] * 4
    assert "grow6of7" in computed()  # 50 shards of 7 rows are 7
    assert [row.prompt for row in lake.read_rows(toy.Sample, outputs[2].samples)] == ["a"] * 7


@pytest.mark.parametrize(("rows", "of"), [(0, 1), (7, 3), (3, 7)])
def test_the_shards_of_a_table_are_the_table(rows: int, of: int) -> None:
    parts = [list(Shard(index=index, of=of).slice(range(rows))) for index in range(of)]
    assert [item for part in parts for item in part] == list(range(rows))


def test_a_shard_has_an_index_below_the_count() -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        Shard(index=2, of=2)


def test_shards_that_disagree_in_a_fact_are_an_error() -> None:
    with pytest.raises(StageInputError, match="disagree"):
        in_shards(2, lambda: toy.disagree.over_shards(toy.draw(Config()).samples))


def test_only_evaluation_gets_annotations() -> None:
    output = toy.annotate()
    assert toy.judge(output.annotations).n == 1
    for argument in (output.annotations, output, [output], {"x": output.annotations}):
        with pytest.raises(AnnotationsForbidden, match="count got annotations as samples"):
            toy.count(argument)
    with pytest.raises(AnnotationsForbidden):
        toy.peek({"digest": output.annotations.digest})


def test_errors_of_a_stage_come_out_unchanged() -> None:
    with pytest.raises(LookupError, match="the original words"):
        toy.fail(toy.draw(Config()).samples)


def test_step_checkpoints_outlive_a_failed_attempt_and_go_when_it_succeeds(home: Path) -> None:
    with pytest.raises(InterruptedError):
        toy.resumable(Config(n=5))
    toy.resumable(Config(n=5))
    assert computed() == [f"step{i}" for i in range(5)]
    assert not list((home / "resume").iterdir())


def test_every_call_is_recorded_under_its_run_and_round() -> None:
    run_id = runs.start_run("Demo run", "{}")
    toy.draw(Config())
    with run_recording(run_id):
        assert runs.latest_run().status == "running"
        with in_round(1):
            toy.loop(Config())
        with in_round(2):
            toy.count(toy.draw.with_label("again")(Config()).samples)
    runs.finish_run(run_id, "completed", rounds=2, champion="round-1")
    calls = runs.stage_runs(run_id)
    assert [(c.round, c.stage, c.shard, c.cached) for c in calls] == [
        (1, "draw", None, True),
        (1, "grow", 0, False),
        (1, "grow", 1, False),
        (1, "grow", 2, False),
        (1, "gather", None, False),
        (1, "count", None, False),
        (2, "draw", None, True),
        (2, "count", None, False),
    ]
    assert {c.run_id for c in calls} == {run_id}
    assert calls[6].label == "again"
    assert runs.latest_run().champion == "round-1"


def test_a_call_travels_to_another_process_by_name() -> None:
    import cloudpickle

    samples = toy.draw(Config()).samples
    arguments = toy.grow._bind((Config(), samples), {"shard": Shard(index=1, of=2)})
    call = toy.grow._call(arguments, Shard(index=1, of=2))
    there = cloudpickle.loads(cloudpickle.dumps(call))
    assert there.key == call.key
    assert there.stage is toy.grow
    assert carry_out(there).output.refs["samples"].rows == 4


def in_process(*arguments: str, **environment: str) -> subprocess.Popen[bytes]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.Popen([sys.executable, "-m", "tests.support.toy_stages", *arguments], env=env)


def test_after_kill_9_only_the_shard_that_died_runs_again() -> None:
    assert in_process(VISLOOP_KILL_IN="grow:1").wait(60) == -signal.SIGKILL
    before = computed()
    assert before == ["draw", "grow0of3", "grow1of3"]
    assert in_process().wait(60) == 0
    assert newly(before) == ["grow1of3", "grow2of3", "count"]


def test_two_processes_compute_once() -> None:
    processes = [in_process("0.3") for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert Counter(computed()) == Counter(ALL)


def test_who_waits_takes_over_when_the_lock_holder_is_killed() -> None:
    holder = in_process("30")
    while "grow0of3" not in computed():
        assert holder.poll() is None
    waiting = in_process("0.01")
    holder.kill()
    holder.wait()
    assert waiting.wait(60) == 0
    assert computed().count("grow0of3") == 2
