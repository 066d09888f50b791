"""Locks between processes that are released even by a crash: flock(2), which the kernel drops with its holder.

Works on local disks and on cluster file systems with flock; on NFS without it two hosts may compute the same artifact
twice, which costs time and nothing else: every write is atomic and content-addressed.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """A descriptor of the lock file; closing it drops the lock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _try(descriptor: int, operation: int) -> bool:
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def shared(path: Path) -> Iterator[None]:
    """Hold `path` together with other readers; waits while another process holds it alone."""
    with _opened(path) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield


@contextmanager
def exclusive(path: Path, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold `path` alone; calls `on_wait` once if another process holds it, then polls, so that Ctrl-C works."""
    with _opened(path) as descriptor:
        pause = 0.02
        while not _try(descriptor, fcntl.LOCK_EX):
            if on_wait is not None:
                on_wait()
                on_wait = None
            time.sleep(pause)
            pause = min(pause * 1.5, 0.5)
        yield


@contextmanager
def exclusive_or_none(path: Path) -> Iterator[bool]:
    """Hold `path` alone if no other process holds it; yields whether it does."""
    with _opened(path) as descriptor:
        yield _try(descriptor, fcntl.LOCK_EX)


def is_held(path: Path) -> bool:
    """Whether a living process holds `path`; False if there is no such file."""
    if not path.exists():
        return False
    with exclusive_or_none(path) as free:
        return not free
