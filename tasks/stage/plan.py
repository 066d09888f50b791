"""Plan mode: go through a flow without executing a stage, and list which would run and why.

A cached stage gives its cached output; what an uncached one would give is `Pending`, and every stage that needs it waits.
A plan is therefore exact up to the first stage that runs, and an upper bound after it: an output that comes out equal
to the old one lets what follows stay cached.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal

from tasks.stage.identity import contained

Action = Literal["cached", "run", "waits"]


class Pending:
    """Stands for what a stage would give, and for everything in it: outputs, references, facts."""

    def __init__(self, origin: str) -> None:
        """Set which stage it waits for."""
        self._origin = origin

    def __getitem__(self, name: str) -> Pending:
        """An output or fact that is not known yet."""
        return Pending(self._origin)

    def __getattr__(self, name: str) -> Pending:
        """A property that is not known yet."""
        if name.startswith("_"):
            raise AttributeError(name)
        return Pending(self._origin)

    def get(self, name: str, default: Any = None) -> Pending:
        """As a dict's."""
        return Pending(self._origin)

    def __bool__(self) -> bool:
        """Plans assume that what is not known yet turns out well: a flow's branch is followed."""
        return True

    def __format__(self, spec: str) -> str:
        """A question mark, whatever the number format."""
        return "?"

    def __repr__(self) -> str:
        """Which stage it waits for."""
        return f"<pending: {self._origin}>"


@dataclass(frozen=True)
class PlanEntry:
    """One stage call of a plan; `shards` are the indices it concerns, None if it is not sharded."""

    stage: str
    label: str
    shards: tuple[int, ...] | None
    action: Action
    why: str

    def __str__(self) -> str:
        """One line."""
        which = f" [{len(self.shards)} shards]" if self.shards and len(self.shards) > 1 else ""
        label = f" ({self.label})" if self.label else ""
        return f"{self.action:<6} {self.stage}{label}{which}{f': {self.why}' if self.why else ''}"


@dataclass
class Plan:
    """What a run would do, in order."""

    entries: list[PlanEntry] = field(default_factory=list)

    def add(self, stage: str, label: str, shards: tuple[int, ...] | None, action: Action, why: str = "") -> None:
        """Append an entry."""
        self.entries.append(PlanEntry(stage, label, shards, action, why))


_plan: ContextVar[Plan | None] = ContextVar("plan", default=None)


@contextmanager
def planning() -> Iterator[Plan]:
    """Inside this block stage calls execute nothing and are entered into the plan instead."""
    plan = Plan()
    token = _plan.set(plan)
    try:
        yield plan
    finally:
        _plan.reset(token)


def current_plan() -> Plan | None:
    """The plan being made; None outside `planning()`."""
    return _plan.get()


def pending_in(value: Any) -> str | None:
    """The stage whose result an argument waits for; None if all of it is known."""
    if isinstance(value, Pending):
        return value._origin
    return next((origin for item in contained(value) if (origin := pending_in(item)) is not None), None)
