"""One call of a stage: look it up, or compute it under a lock; write down that it happened.

Independent of Prefect: the same function runs in a task, in a worker of another machine, or in a plain script.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from storage import lake, runs
from storage import records as cache
from storage.artifacts import StageOutput
from storage.records import Identity, Record
from storage.schema import StageRun
from tasks.stage.differences import why
from tasks.stage.identity import code_digest, key_of
from tasks.stage.results import to_output
from tasks.stage.runtime import current_runtime, use_runtime

log = logging.getLogger(__name__)

_key: ContextVar[str | None] = ContextVar("stage_key", default=None)
_recording: ContextVar[str | None] = ContextVar("run_id", default=None)
_round: ContextVar[int] = ContextVar("round", default=0)


@contextmanager
def run_recording(run_id: str) -> Iterator[None]:
    """Every stage call inside appends to this run's records; the run counts as alive until the block ends."""
    token = _recording.set(run_id)
    try:
        with runs.alive(run_id):
            yield
    finally:
        _recording.reset(token)


@contextmanager
def in_round(number: int) -> Iterator[None]:
    """Stage calls inside belong to this round (0: before the first)."""
    token = _round.set(number)
    try:
        yield
    finally:
        _round.reset(token)


def current_run() -> tuple[str, int] | None:
    """(run id, round) that stage calls are recorded under; None: they are not."""
    run_id = _recording.get()
    return None if run_id is None else (run_id, _round.get())


class Call:
    """A stage with its arguments bound; picklable, so that it can be carried to another process."""

    def __init__(
        self,
        stage: Any,
        arguments: dict[str, Any],
        identity: Identity,
        *,
        label: str,
        index: int | None,
        title: str,
    ) -> None:
        """Bind; run, round and runtime are those of the moment."""
        self.stage = stage
        self.arguments = arguments
        self.identity = identity
        self.label = label
        self.index = index  # of the shard; None: not sharded
        self.title = title
        self.run = current_run()
        self.runtime = current_runtime()

    @cached_property
    def key(self) -> str:
        """The cache key."""
        return key_of(self.identity)

    def why(self) -> str:
        """Why it is not cached, in words."""
        return why(self.identity, self.label, getattr(self.arguments.get("config"), "section", ""))


@dataclass(frozen=True)
class Outcome:
    """What a call gave, and whether nothing had to be computed for it."""

    output: StageOutput
    cached: bool


def fault_point(stage: str, shard: int | None = None) -> None:
    """Die here, as with kill -9, if VISLOOP_KILL_IN names this stage (or stage:shard). For tests of resuming."""
    wanted, _, index = os.environ.get("VISLOOP_KILL_IN", "").partition(":")
    if wanted == stage and (not index or index == str(shard or 0)):
        os.kill(os.getpid(), signal.SIGKILL)


def resume_folder() -> Path:
    """In a stage's body: a folder for step checkpoints that outlives a killed process.

    The next run of the same call (same key) finds it again; it is deleted when the call succeeds. Outside a cached
    call (`stage.fn`) it is a new temporary folder.
    """
    key = _key.get()
    return Path(tempfile.mkdtemp(prefix="visloop-")) if key is None else cache.resume_folder(key)


def carry_out(call: Call, *, refresh: bool = False) -> Outcome:
    """Give the cached output if it is whole, else compute it, once among all processes that want it.

    Args:
        call: what to do.
        refresh: compute even if it is cached.

    Raises:
        Exception: whatever the stage raises, unchanged.
    """
    started_at, began = runs.now(), time.perf_counter()
    outcome = None if refresh else _hit(call)
    if outcome is None:
        waiting = _say_waiting(call)
        with cache.computing(call.key, waiting):
            outcome = (None if refresh else _hit(call, quiet=True)) or _compute(call, began)
    seconds = time.perf_counter() - began
    _write_down(call, outcome, started_at, seconds)
    log.info(
        "%s: %s in %.2f s, %d rows", call.title, "cached" if outcome.cached else "ran", seconds, outcome.output.rows
    )
    return outcome


def _say_waiting(call: Call) -> Callable[[], None]:
    return lambda: log.info("%s: another process computes it, waiting", call.title)


def _hit(call: Call, *, quiet: bool = False) -> Outcome | None:
    record, problem = cache.load(call.identity["stage"], call.key)
    if record is not None:
        return Outcome(record.output, cached=True)
    if problem is not None and not quiet:
        log.warning("%s: kept, but %s; computing it again", call.title, problem)
    return None


def _compute(call: Call, began: float) -> Outcome:
    log.info("%s: runs (%s)", call.title, call.why())
    token = _key.set(call.key)
    try:
        allowed = lake.annotations_allowed() if call.stage.reads_annotations else nullcontext()
        with allowed, use_runtime(call.runtime):
            result = call.stage.fn(**call.arguments)
    finally:
        _key.reset(token)
    try:
        output = to_output(result)
    except TypeError as error:
        raise TypeError(f"stage {call.title} returned {error}") from None
    fault_point(call.identity["stage"], call.index)
    record = Record(call.identity, call.label, output, round(time.perf_counter() - began, 3))
    cache.store(call.identity["stage"], call.key, record)
    cache.remove_unfinished(call.key)
    return Outcome(output, cached=False)


def _write_down(call: Call, outcome: Outcome, started_at: str, seconds: float) -> None:
    if call.run is None:
        return
    run_id, number = call.run
    output, identity = outcome.output, call.identity
    runs.record_stage(
        StageRun(
            run_id=run_id,
            round=number,
            stage=identity["stage"],
            label=call.label,
            shard=call.index,
            key=call.key,
            digest=output.digest,
            outputs=json.dumps({name: ref.model_dump() for name, ref in output.refs.items()}),
            cached=outcome.cached,
            started_at=started_at,
            seconds=round(seconds, 4),
            rows=output.rows,
            counters=json.dumps(output.counters),
            config=json.dumps(identity["config"]),
            code=code_digest(identity["code"]),
        )
    )
