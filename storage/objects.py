"""Immutable files named by their digest: written to a temporary name, fsynced, hashed, sealed, renamed.

Sealing (read-only, a fixed modification time) makes a later check cheap: a sealed file of the right size was not
written to since; any other is hashed again. What the files hold does not matter here.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from storage import locks

SEALED_AT = 946_684_800  # 2000-01-01, in seconds since 1970: no file is written then by accident
_RACY_NS = 2_000_000_000  # a file younger than this may change again within its clock tick: its digest is not cached


class ArtifactError(Exception):
    """The store does not hold what it should."""


class ArtifactMissing(ArtifactError):
    """A file of the store is not there."""


class ArtifactDamaged(ArtifactError):
    """A file of the store does not match its digest."""


class StoreInUse(ArtifactError):
    """Garbage can't be collected now: a run uses the store."""


def home() -> Path:
    """Folder of everything that is kept: the variable VISLOOP_HOME, or ./artifacts."""
    return Path(os.environ.get("VISLOOP_HOME") or "artifacts").expanduser().absolute()


def object_path(digest: str, suffix: str) -> Path:
    """Where the object of this digest lies, whether it exists or not."""
    return home() / "objects" / digest[:2] / f"{digest}{suffix}"


@contextmanager
def using_store() -> Iterator[None]:
    """Hold off garbage collection while the store is written to or read from."""
    with locks.shared(home() / "locks" / "store"):
        yield


@contextmanager
def owning_store() -> Iterator[None]:
    """Hold the store exclusively.

    Raises:
        StoreInUse: a run uses it.
    """
    with locks.exclusive_or_none(home() / "locks" / "store") as held:
        if not held:
            raise StoreInUse(f"{home()} is used by a run; wait until it ends, then try again")
        yield


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cached_digest(path: Path) -> str:
    """SHA-256 of a file outside the store; hashed once for each path, size and modification time."""
    path = path.resolve()
    stat = path.stat()
    seen = [str(path), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
    note = home() / "hashes" / f"{hashlib.sha256(str(path).encode()).hexdigest()[:32]}.json"
    try:
        cached = json.loads(note.read_text())
        if cached["file"] == seen:
            return str(cached["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no note or a broken one: hash
    digest = file_digest(path)
    if time.time_ns() - stat.st_mtime_ns > _RACY_NS:
        write_atomically(note, json.dumps({"file": seen, "sha256": digest}).encode())
    return digest


def temporary_path(suffix: str = "") -> Path:
    """A name in the store's folder for unfinished things; on the same disk as the objects."""
    folder = home() / "tmp"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{uuid.uuid4().hex}{suffix}"


def write_atomically(path: Path, data: bytes) -> None:
    """Write a small record: readers see all of it or nothing."""
    with using_store():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_path(".part")
        temporary.write_bytes(data)
        temporary.replace(path)


def seal(path: Path) -> None:
    """Mark a file as finished."""
    path.chmod(0o444)
    os.utime(path, (SEALED_AT, SEALED_AT))


def flush(path: Path) -> None:
    """Wait until a file or folder has reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_file(path: Path, digest: str, size: int, *, full: bool) -> None:
    """Make sure that a sealed file still has the digest it was sealed with.

    Raises:
        ArtifactMissing: there is no such file.
        ArtifactDamaged: its content does not match the digest.
    """
    try:
        stat = path.stat()
    except FileNotFoundError:
        raise ArtifactMissing(f"{path} is gone") from None
    sealed = stat.st_mtime_ns == SEALED_AT * 1_000_000_000
    if stat.st_size != size:
        raise ArtifactDamaged(f"{path} has {stat.st_size} bytes instead of {size}")
    if sealed and not full:
        return
    if file_digest(path) != digest:
        raise ArtifactDamaged(f"{path} does not match the digest in its name")
    if not sealed:
        seal(path)  # copied or touched, but whole: cheap to check from now on


def install_file(temporary: Path, suffix: str) -> tuple[str, int]:
    """Move a finished temporary file to the name of its digest; returns digest and size."""
    flush(temporary)
    digest, size = file_digest(temporary), temporary.stat().st_size
    target = object_path(digest, suffix)
    with using_store():
        target.parent.mkdir(parents=True, exist_ok=True)
        seal(temporary)
        temporary.replace(target)
        flush(target.parent)
    return digest, size


def install_folder(temporary: Path, digest: str) -> None:
    """Move a finished temporary folder to the name of its manifest's digest; a copy there is replaced if damaged."""
    target = object_path(digest, "")
    with using_store():
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            remove_tree(target)
        temporary.replace(target)
        flush(target.parent)


def remove_tree(folder: Path) -> None:
    """Delete a folder of the store; moved away first, so that no reader sees half of it."""
    aside = temporary_path(".gone")
    folder.replace(aside)
    shutil.rmtree(aside, ignore_errors=True)
