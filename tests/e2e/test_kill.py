"""kill -9 in the middle of every stage, then the same command: it goes on, and ends as if nothing had happened."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path

import pytest

from storage import runs
from tests.support.tiny_run import computed, counters, digests, in_process

# In the order of a run, so that what came before is a cache hit. "search:1" dies in the second shard, the first is kept.
KILLS = [
    "sample", "annotate", "search:1", "gather", "evaluate", "take", "rollout:1", "score:1", "health", "shape_rewards",
    "train_value", "search:1", "finetune", "drift", "compare", "promote",
]  # fmt: skip


@pytest.fixture
def in_store(monkeypatch: pytest.MonkeyPatch):
    def enter(home: Path) -> Path:
        monkeypatch.setenv("VISLOOP_HOME", str(home))
        return home

    return enter


def test_after_kill_9_in_every_stage_the_run_ends_as_an_uninterrupted_one(tmp_path: Path, in_store) -> None:
    whole = in_store(tmp_path / "whole")
    assert in_process(whole) == 0
    uninterrupted = runs.latest_run().run_id
    expected, all_calls = digests(uninterrupted), computed(uninterrupted)
    training = counters(uninterrupted, "train_value")
    dies_at = int(training["steps"]) // 2 + 1
    assert dies_at % 3, "it would die just after a step checkpoint: choose another batch size"

    home, done = in_store(tmp_path / "killed"), []
    for kill in KILLS:
        assert in_process(home, kill_in=kill) == -signal.SIGKILL, kill
        run = runs.latest_run()
        assert run.status == "failed"
        assert "killed?" in run.message
        done += computed(run.run_id)
        unfinished = {path.name for folder in (home / "resume").glob("*") for path in folder.iterdir()}
        if kill == "train_value":
            (name,) = [name for name in unfinished if name.startswith("step-")]
            assert name == f"step-{dies_at // 3 * 3:08d}.safetensors"
        if kill == "finetune":
            assert "checkpoint-2" in unfinished
    assert in_process(home) == 0
    last = runs.latest_run().run_id
    done += computed(last)

    assert digests(last) == expected
    assert Counter(done) == Counter(all_calls), "a stage or shard that was finished ran again"
    stages = {stage for _, stage, _, _ in all_calls}
    assert stages == {kill.partition(":")[0] for kill in KILLS}, "a stage is not killed in this test"
    assert not list((home / "resume").glob("*"))
    resumed = [run.run_id for run in runs.list_runs() if any(c[1] == "train_value" for c in computed(run.run_id))]
    assert counters(resumed[0], "train_value")["value_tokens"] < training["value_tokens"], "training began anew"
