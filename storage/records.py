"""Records of the cache: for each key the identity of the call and its output.

A record counts only if every artifact it names is still there and whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from storage import locks, objects
from storage.artifacts import ArtifactRef, StageOutput
from storage.schema import ROW_TYPES

Identity = dict[str, Any]


@dataclass(frozen=True)
class Record:
    """A recorded call: identity, label (for people, not part of the key), output, seconds it took."""

    identity: Identity
    label: str
    output: StageOutput
    seconds: float


def _folder(stage: str) -> Path:
    return objects.home() / "cache" / stage


def _path(stage: str, key: str) -> Path:
    return _folder(stage) / f"{key}.json"


def store(stage: str, key: str, record: Record) -> None:
    """Write a record; from now on the call is a hit."""
    text = json.dumps(
        {
            "identity": record.identity,
            "label": record.label,
            "output": record.output.model_dump(),
            "seconds": record.seconds,
        },
        indent=1,
    )
    objects.write_atomically(_path(stage, key), text.encode())


def _read(path: Path) -> Record | None:
    try:
        saved = json.loads(path.read_text())
        return Record(
            identity=saved["identity"],
            label=saved["label"],
            output=StageOutput.model_validate(saved["output"]),
            seconds=saved["seconds"],
        )
    except (OSError, ValueError, KeyError, TypeError, ValidationError):
        return None


def _problem(ref: ArtifactRef) -> str | None:
    """Why an artifact can't be used any more; None if it can."""
    if ref.is_table and ref.schema_version != ROW_TYPES[ref.kind].version:
        return f"{ref} is of schema version {ref.schema_version}, now {ROW_TYPES[ref.kind].version}"
    try:
        ref.verify()
    except (objects.ArtifactError, OSError, ValueError) as error:
        return str(error)
    return None


def load(stage: str, key: str) -> tuple[Record | None, str | None]:
    """The record of a key if it is still valid; otherwise why it is not (None: there never was a record)."""
    path = _path(stage, key)
    if not path.exists():
        return None, None
    record = _read(path)
    if record is None:
        return None, f"the record {path.name} can't be read"
    for ref in record.output.refs.values():
        problem = _problem(ref)
        if problem is not None:
            return None, problem
    return record, None


def records(stage: str, newest: int = 200) -> list[Record]:
    """The newest records of a stage, newest first, whether their artifacts are still there or not."""
    if not _folder(stage).is_dir():
        return []
    paths = sorted(_folder(stage).glob("*.json"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    return [record for record in map(_read, paths[:newest]) if record is not None]


def all_records() -> Iterator[tuple[Path, Record | None]]:
    """Every record with its file; None for a record that can't be read."""
    for path in sorted((objects.home() / "cache").glob("*/*.json")):
        yield path, _read(path)


@contextmanager
def computing(key: str, on_wait: Callable[[], None]) -> Iterator[None]:
    """Compute `key` in this process only; garbage collection is held off meanwhile."""
    with objects.using_store(), locks.exclusive(objects.home() / "locks" / f"{key}.lock", on_wait):
        yield


def resume_folder(key: str) -> Path:
    """A folder for the unfinished work of one key: it stays after a killed process and is deleted when the key is done."""
    folder = objects.home() / "resume" / key
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def remove_unfinished(key: str) -> None:
    """Delete the key's resume folder."""
    folder = objects.home() / "resume" / key
    if folder.exists():
        objects.remove_tree(folder)
