"""Progress of a long loop: a bar on a terminal, a line now and then in a log, an artifact in Prefect's run graph.

Showing progress never fails the work: errors of Prefect's server are ignored.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeRemainingColumn

log = logging.getLogger(__name__)

_LINE_EVERY = 10.0  # seconds
_UPDATE_EVERY = 5.0  # seconds: each update is a request and, on SQLite, a write
_terminal = threading.Lock()  # held by the one bar that a terminal can show; shards run in threads

Advance = Callable[..., None]


@contextmanager
def progress(name: str, total: int, unit: str = "items") -> Iterator[Advance]:
    """Show how far a loop is: `with progress("rollout", 300, "answers") as advance: ... advance(8)`.

    Args:
        name: what is being done.
        total: how many of `unit` there are.
        unit: what is counted, in the plural.
    """
    on_terminal = sys.stderr.isatty() and _terminal.acquire(blocking=False)
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeRemainingColumn(),
        console=Console(stderr=True), transient=True, disable=not on_terminal, get_time=time.monotonic,
        speed_estimate_period=float("inf"),  # steps may take minutes; rich looks at the last 1000
    )  # fmt: skip
    task_id = bar.add_task(name, total=total)
    (task,) = bar.tasks
    line_due, update_due, artifact = _every(_LINE_EVERY), _every(_UPDATE_EVERY), _Artifact(name)

    def advance(n: int = 1) -> None:
        bar.advance(task_id, n)
        if not on_terminal and line_due():
            log.info(_line(task, unit))
        if update_due():
            artifact.update(task.percentage)

    try:
        with bar:
            yield advance
    finally:
        if artifact.id:
            artifact.update(task.percentage)
        if on_terminal:
            _terminal.release()


def _line(task: Task, unit: str) -> str:
    rate = f", {task.speed:.3g} a second, {task.time_remaining:.0f} s left" if task.speed else ""
    return f"{task.description}: {task.completed:.0f} of {task.total:.0f} {unit}{rate}"


def _every(seconds: float) -> Callable[[], bool]:
    """A function that returns True at most once in so many seconds, first after that time."""
    last = time.monotonic()

    def due() -> bool:
        nonlocal last
        now = time.monotonic()
        if now - last < seconds:
            return False
        last = now
        return True

    return due


class _Artifact:
    """A progress artifact of the Prefect task run, made at the first update; nothing outside of one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.id: UUID | None = None
        self.wanted = _is_running("TaskRunContext")

    def update(self, percent: float) -> None:
        if not self.wanted:
            return
        try:
            from tasks.stage.prefect import show_progress

            self.id = show_progress(self.id, percent, self.name)
        except Exception:  # whatever the client raises, the work goes on
            log.debug("progress of %s not shown", self.name, exc_info=True)
            self.wanted = False


def _is_running(*contexts: str) -> bool:
    """Whether Prefect runs one of these here; where it isn't loaded, it doesn't."""
    module: Any = sys.modules.get("prefect.context")
    return module is not None and any(getattr(module, context).get() is not None for context in contexts)


def duration(seconds: float | None) -> str:
    """Seconds as people read them."""
    if seconds is None:
        return "—"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def create_markdown(name: str, text: str, description: str = "") -> None:
    """Show markdown (data: URIs for images work) as an artifact of the run, if one is running; never fails."""
    if not _is_running("FlowRunContext", "TaskRunContext"):
        return
    key = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")  # all that Prefect allows
    try:
        from tasks.stage.prefect import create_artifact

        create_artifact("create_markdown_artifact", key=key, markdown=text, description=description)
    except Exception:  # whatever the client raises, the work goes on
        log.warning("artifact %s not shown", name, exc_info=True)
