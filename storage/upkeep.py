"""Maintain the store: verify every digest, and delete what nothing refers to any more."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from storage import manifests, objects, runs
from storage.artifacts import ArtifactRef
from storage.records import all_records
from storage.schema import Run

_RESUMABLE_SECONDS = 7 * 24 * 3600
_MANIFEST, _POINTER, _TABLE = ".manifest.json", ".pointer.json", ".parquet"


@dataclass
class VerifyReport:
    """The result of `verify`: artifacts checked, bytes hashed, what is wrong with which."""

    artifacts: int = 0
    size: int = 0
    damaged: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Nothing is damaged or missing."""
        return not self.damaged


@dataclass
class GarbageReport:
    """What `collect_garbage` removed, or would remove."""

    runs: list[str] = field(default_factory=list)
    records: int = 0
    objects: int = 0
    unfinished: int = 0
    size: int = 0


def _objects(suffix: str) -> list[Path]:
    return sorted((objects.home() / "objects").glob(f"*/*{suffix}"))


def _digest(path: Path) -> str:
    return path.name.partition(".")[0]


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(item.lstat().st_size for item in path.rglob("*") if item.is_file())
    return path.lstat().st_size


def verify() -> VerifyReport:
    """Hash every artifact again, checkpoints that lie outside the store too.

    A damaged file loses its seal, so that the next run that needs it notices and computes it again.
    """
    report = VerifyReport()
    with objects.using_store():
        for path in _objects(_TABLE) + _objects(_MANIFEST):
            _check(report, path)
        for ref in sorted(_refs_of_records(), key=str):
            if ref.is_table and not ref.path.exists():
                report.damaged.append(f"{ref} is gone")
    return report


def _check(report: VerifyReport, path: Path) -> None:
    digest = _digest(path)
    report.artifacts += 1
    try:
        if path.name.endswith(_TABLE):
            report.size += _size(path)
            objects.check_file(path, digest, _size(path), full=True)
        else:
            report.size += sum(entry["size"] for entry in manifests.load(digest).values())
            manifests.check_folder(digest, full=True)
    except (objects.ArtifactError, OSError, ValueError) as error:
        report.damaged.append(str(error))
        _unseal(path)


def _unseal(path: Path) -> None:
    inside = objects.object_path(_digest(path), "")
    files = manifests.files_of(inside) if inside.is_dir() else [path]
    for file in files:
        os.utime(file)


def _refs_of_records() -> set[ArtifactRef]:
    return {ref for _, record in all_records() if record for ref in record.output.refs.values()}


def _refs_of_runs(kept: Iterable[Run]) -> Iterator[tuple[str, set[str]]]:
    """(key, digests) of every stage call of these runs."""
    for run in kept:
        for call in runs.stage_runs(run.run_id):
            yield call.key, {value["digest"] for value in json.loads(call.outputs).values()}


def collect_garbage(keep_runs: int | None = None, *, dry_run: bool = False) -> GarbageReport:
    """Remove what is not needed any more.

    Always: unfinished temporary files, step checkpoints that were not resumed for a week, lock files, and objects that
    no run and no cache record names. With `keep_runs`: also older runs' records, and every cache record that the kept
    runs did not use.

    Args:
        keep_runs: how many of the newest runs to keep; None keeps all runs and the whole cache.
        dry_run: only report what would be deleted.

    Raises:
        StoreInUse: a run uses the store.
    """
    with objects.owning_store():
        report = GarbageReport()
        known = runs.list_runs()
        kept = known if keep_runs is None else known[len(known) - min(keep_runs, len(known)) :]
        dropped = {run.run_id for run in known} - {run.run_id for run in kept}
        to_delete = [runs.run_folder(run_id) for run_id in sorted(dropped)]
        report.runs = sorted(dropped)
        keys, wanted = set[str](), set[str]()
        for key, digests in _refs_of_runs(kept):
            keys.add(key)
            wanted |= digests
        for path, record in all_records():
            if record is not None and (keep_runs is None or path.stem in keys):
                wanted.update(ref.digest for ref in record.output.refs.values())
            else:
                to_delete.append(path)
                report.records += 1
        unwanted = list(_unwanted(wanted))
        report.objects = len({_digest(path) for path in unwanted})
        unfinished = [*(objects.home() / "tmp").glob("*"), *_abandoned()]
        report.unfinished = len(unfinished)
        to_delete += unwanted + unfinished
        report.size = sum(map(_size, to_delete))
        if not dry_run:
            _remove([*to_delete, *(objects.home() / "locks").glob("*.lock")])
        return report


def _unwanted(wanted: set[str]) -> Iterator[Path]:
    """Objects without a wanted digest; the pointer of a checkpoint outside the store stays."""
    for path in sorted((objects.home() / "objects").glob("*/*")):
        digest = _digest(path)
        if digest not in wanted and not objects.object_path(digest, _POINTER).exists():
            yield path


def _abandoned() -> Iterator[Path]:
    """Step checkpoints of killed runs, not resumed for a week."""
    for path in (objects.home() / "resume").glob("*"):
        if time.time() - path.stat().st_mtime > _RESUMABLE_SECONDS:
            yield path


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
