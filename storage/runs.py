"""Records of runs and of their stage calls: the catalog's `runs` and `stages`.

Records are small Parquet files, written atomically; garbage collection keeps the artifacts that they name.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import secrets
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from storage import locks, objects
from storage.rows import conform, to_rows, to_table
from storage.schema import Row, Run, StageRun


class NoSuchRun(objects.ArtifactError):
    """There is no run of that name."""


def now() -> str:
    """This moment, ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def run_folder(run_id: str) -> Path:
    """Folder of a run's records; stages may not write there, reports may."""
    return objects.home() / "runs" / run_id


def _write(path: Path, row_type: type[Row], rows: list[Row] | pa.Table) -> None:
    with objects.using_store():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = objects.temporary_path(".parquet")
        pq.write_table(to_table(row_type, rows), temporary, compression="zstd")
        temporary.replace(path)


def start_run(profile_name: str, config_json: str) -> str:
    """Begin a run; returns its id (time, profile and a random part)."""
    name = re.sub(r"[^a-z0-9]+", "-", profile_name.lower()).strip("-") or "run"
    run_id = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{name}-{secrets.token_hex(2)}"
    started = Run(
        run_id=run_id,
        profile=profile_name,
        status="running",
        started_at=now(),
        seconds=None,
        rounds=0,
        champion="base",
        message="",
        config=config_json,
    )
    _write(run_folder(run_id) / "run.parquet", Run, [started])
    return run_id


def record_stage(stage_run: StageRun) -> None:
    """Append one stage call to its run."""
    name = f"{time.time_ns()}-{secrets.token_hex(4)}.parquet"
    _write(run_folder(stage_run.run_id) / "stages" / name, StageRun, [stage_run])


def finish_run(run_id: str, status: str, *, rounds: int = 0, champion: str = "base", message: str = "") -> Run:
    """End a run: completed or failed; its stage records become one file.

    Raises:
        NoSuchRun: it was never started.
    """
    started = load_run(run_id)
    began = datetime.fromisoformat(started.started_at)
    finished = dataclasses.replace(
        started,
        status=status,
        seconds=round((datetime.now(UTC) - began).total_seconds(), 3),
        rounds=rounds,
        champion=champion,
        message=message,
    )
    _write(run_folder(run_id) / "run.parquet", Run, [finished])
    _compact(run_id)
    return finished


def _compact(run_id: str) -> None:
    """Join the stage records: a catalog over many runs opens one file each."""
    folder = run_folder(run_id) / "stages"
    pieces = _stage_files(run_id)
    if len(pieces) > 1:
        # All names here begin with a digit and this one sorts first. A crash before the pieces are deleted duplicates
        # nothing, because readers drop equal rows.
        _write(folder / "0.parquet", StageRun, stage_table(run_id))
        for piece in pieces:
            if piece.name != "0.parquet":
                piece.unlink(missing_ok=True)


def _stage_files(run_id: str) -> list[Path]:
    return sorted((run_folder(run_id) / "stages").glob("*.parquet"))


def stage_table(run_id: str) -> pa.Table:
    """The stage records of a run, in the order they were written, none twice."""
    rows = stage_runs(run_id)
    return to_table(StageRun, rows)


def stage_runs(run_id: str) -> list[StageRun]:
    """The stage records of a run as rows, in the order they were written, none twice."""
    rows: dict[StageRun, None] = {}
    for path in _stage_files(run_id):
        table = conform(StageRun, pq.ParquetFile(path).read())
        rows.update(dict.fromkeys(to_rows(StageRun, table)))
    return list(rows)


def load_run(run_id: str) -> Run:
    """One run; `failed` if its process ended before the run did.

    Raises:
        NoSuchRun: there is none of that id.
    """
    path = run_folder(run_id) / "run.parquet"
    if not path.exists():
        raise NoSuchRun(f"no run {run_id!r} in {objects.home()}; `visloop runs` lists them")
    (run,) = to_rows(Run, conform(Run, pq.ParquetFile(path).read()))
    alive = run_folder(run_id) / "alive"
    if run.status == "running" and alive.exists() and not locks.is_held(alive):
        return dataclasses.replace(run, status="failed", message="its process ended before the run did (killed?)")
    return run


def list_runs() -> list[Run]:
    """All runs, oldest first."""
    folder = objects.home() / "runs"
    loaded = [load_run(path.parent.name) for path in folder.glob("*/run.parquet")]
    return sorted(loaded, key=lambda run: (run.started_at, run.run_id))


def latest_run() -> Run | None:
    """The run started last; None if there is none."""
    return next(reversed(list_runs()), None)


@contextlib.contextmanager
def alive(run_id: str) -> Iterator[None]:
    """Mark a run as running as long as this process lives, and hold off garbage collection."""
    with objects.using_store(), locks.shared(run_folder(run_id) / "alive"):
        yield
