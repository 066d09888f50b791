"""The demo profile with small numbers: the whole loop in seconds. Also runs it, without Prefect, in a process to be killed."""

from __future__ import annotations

import json
import multiprocessing
import os
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from flows.profiles.loading import Profile, load_profile
from storage import runs
from storage.schema import StageRun

SMALL = (
    "data.train.images=200",
    "data.benchmark.images=200",
    "sample.images=24",
    "sample.val_share=0.3",
    "rollout.temperatures=[0.7]",
    "rollout.max_new_tokens=60",
    "value.reads=image_and_text",
    "value.train=full",
    "value.target=td0",
    "value.epochs=2",
    "value.batch_size=16",
    "value.min_spearman=-1",
    "value.min_spread=0",
    "value.checkpoint_steps=3",
    "search.candidates=3",
    "search.max_sentences=3",
    "search.max_new_tokens=60",
    "finetune.epochs=2",
    "finetune.batch_size=8",
    "finetune.checkpoint_steps=2",
    "evaluate.images=20",
    "evaluate.decodings=[greedy,search]",
    "evaluate.bootstrap=200",
    "health.images=6",
    "health.action=warn",
    "runtime.device=cpu",
    "runtime.threads=1",
)


def tiny(*overrides: str, rounds: int = 1) -> Profile:
    other_data = any(override.startswith("data.train.kind=") for override in overrides)
    small = [override for override in SMALL if not (other_data and override.startswith("data.train."))]
    return load_profile("demo", [*small, *overrides], rounds=rounds)


def calls(run_id: str) -> list[StageRun]:
    return runs.stage_runs(run_id)


def named(call: StageRun) -> tuple[int, str, str, int | None]:
    return call.round, call.stage, call.label, call.shard


def digests(run_id: str) -> dict[tuple[int, str, str, int | None], str]:
    """Which call of a stage -> digest of what it gave."""
    return {named(call): call.digest for call in calls(run_id)}


def computed(run_id: str) -> list[tuple[int, str, str, int | None]]:
    """The calls that were not answered from the cache, in order."""
    return [named(call) for call in calls(run_id) if not call.cached]


def improve_here(home: str, overrides: tuple[str, ...], kill_in: str) -> None:
    """In a process of its own: the loop without Prefect."""
    os.environ |= {"VISLOOP_HOME": home, "VISLOOP_KILL_IN": kill_in}
    from flows.self_training import improve
    from tasks.stage.calls import run_recording

    profile = tiny(*overrides)
    run_id = runs.start_run(profile.name, profile.model_dump_json())
    with run_recording(run_id):
        improve(profile, run_id)


def in_process(home: Path, *overrides: str, kill_in: str = "") -> int:
    """Run it to its end, or its death; the exit code. Processes are forked from one that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["tests.support.tiny_run", "flows.self_training", "tasks.core.train.sft", "peft", "open_clip"]
    )
    process: ForkServerProcess = context.Process(target=improve_here, args=(str(home), overrides, kill_in))
    process.start()
    process.join(150)
    if process.is_alive():
        process.kill()
        raise TimeoutError("the run did not end")
    assert process.exitcode is not None
    return process.exitcode


def counters(run_id: str, stage: str) -> dict[str, float]:
    (measured,) = [json.loads(call.counters) for call in calls(run_id) if call.stage == stage]
    return measured
