"""Progress of a long loop: a bar on a terminal, a line now and then in a log, a ring in Prefect's run graph.

Showing progress never fails the work: what the server answers is ignored.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from uuid import UUID

log = logging.getLogger(__name__)

_LINE_EVERY = 10.0  # seconds
_UPDATE_EVERY = 5.0  # seconds: each update is a request and, on SQLite, a write

Advance = Callable[..., None]


class _Lines:
    """At most one plain line every ten seconds, with rate and time left; none for what is done before that."""

    def __init__(self, name: str, total: int, unit: str) -> None:
        self.name, self.total, self.unit = name, total, unit
        self.began = self.said = time.monotonic()

    def show(self, done: int) -> None:
        now = time.monotonic()
        if now - self.said < _LINE_EVERY:
            return
        self.said = now
        rate = done / (now - self.began)
        left = f", {(self.total - done) / rate:.0f} s left" if rate > 0 else ""
        log.info("%s: %d of %d %s, %.3g a second%s", self.name, done, self.total, self.unit, rate, left)


class _Ring:
    """A progress artifact of the task run, made at the first update."""

    def __init__(self, name: str, total: int) -> None:
        self.name, self.total = name, total
        self.artifact: UUID | None = None
        self.sent = time.monotonic()
        self.wanted = _in_task_run()

    def show(self, done: int, *, last: bool = False) -> None:
        now = time.monotonic()
        if not self.wanted or (now - self.sent < _UPDATE_EVERY and not (last and self.artifact)):
            return
        self.sent = now
        try:
            self._send(100 * done / self.total if self.total else 100.0)
        except Exception:  # whatever the client raises, the work goes on
            log.debug("progress of %s not shown", self.name, exc_info=True)
            self.wanted = False

    def _send(self, percent: float) -> None:
        from tasks.stage.prefect import show_progress

        self.artifact = show_progress(self.artifact, percent, self.name)


def _in_task_run() -> bool:
    context: Any = sys.modules.get("prefect.context")
    return context is not None and context.TaskRunContext.get() is not None


def _bar(stack: ExitStack, name: str, total: int, unit: str) -> Callable[[int], None] | None:
    """A bar if somebody watches and no other bar is on the screen; None otherwise."""
    if not sys.stderr.isatty():
        return None
    from rich.console import Console
    from rich.errors import LiveError
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
    bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
    try:
        stack.enter_context(bar)
    except LiveError:  # another shard's bar, in another thread
        return None
    task = bar.add_task(name, total=total)
    return lambda done: bar.update(task, completed=done)


@contextmanager
def progress(name: str, total: int, unit: str = "items") -> Iterator[Advance]:
    """Show how far a loop is: `with progress("rollout", 300, "answers") as advance: ... advance(8)`.

    Args:
        name: what is being done.
        total: how many of `unit` there are.
        unit: what is counted, in the plural.
    """
    done = 0
    lines, ring = _Lines(name, total, unit), _Ring(name, total)
    with ExitStack() as stack:
        bar = _bar(stack, name, total, unit)

        def advance(n: int = 1) -> None:
            nonlocal done
            done += n
            (bar or lines.show)(done)
            ring.show(done)

        try:
            yield advance
        finally:
            ring.show(done, last=True)


def duration(seconds: float | None) -> str:
    """Seconds as people read them."""
    if seconds is None:
        return "—"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _artifact_key(name: str) -> str:
    """Prefect allows lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def create_table(name: str, rows: list[dict[str, Any]], description: str = "") -> None:
    """Show rows as a table artifact of the run, if a flow or task is running; never fails."""
    _create("create_table_artifact", name, table=rows, description=description)


def create_markdown(name: str, text: str, description: str = "") -> None:
    """Show markdown (data: URIs for images work) as an artifact of the run, if one is running; never fails."""
    _create("create_markdown_artifact", name, markdown=text, description=description)


def _create(maker: str, name: str, **content: Any) -> None:
    context: Any = sys.modules.get("prefect.context")
    if context is None or (context.FlowRunContext.get() is None and context.TaskRunContext.get() is None):
        return
    try:
        from tasks.stage.prefect import create_artifact

        create_artifact(maker, key=_artifact_key(name), **content)
    except Exception:  # whatever the client raises, the work goes on
        log.warning("artifact %s not shown", name, exc_info=True)
