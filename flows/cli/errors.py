"""What the command prints when something is wrong: what came, what was needed, what to do next; no traceback.

An error type that this project defines carries a message for people, so it is printed as it is. Anything else is a
defect and keeps its traceback.
"""

from __future__ import annotations

import difflib
import os
import sys
import traceback
from collections.abc import Iterable
from typing import Any

import typer
from typer.core import TyperGroup

OURS = ("flows", "tasks", "storage")
FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130
DEBUG = "VISLOOP_DEBUG"


class InputError(ValueError):
    """Something the user gave cannot be used."""


class RunFailed(RuntimeError):
    """A run started and did not complete."""


def nearest(came: str, allowed: Iterable[str]) -> str:
    """`; did you mean X? ` where something near is allowed, else `; `: to be followed by what is."""
    near = difflib.get_close_matches(came, list(allowed), 1, 0.4)
    return f"; did you mean {near[0]}? " if near else "; "


def require_one_of(option: str, came: str, allowed: Iterable[str]) -> None:
    """Refuse a value that is none of those allowed."""
    allowed = list(allowed)
    if came not in allowed:
        raise InputError(f"{option} {came!r}{nearest(came, allowed)}allowed: {', '.join(allowed)}")


class Commands(TyperGroup):
    """The group of all commands: known errors end in a short message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; translate its errors."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo("\ninterrupted; the same command resumes where it stopped", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            if not is_known(error):
                raise
            show(error)
            raise typer.Exit(FAILED if isinstance(error, RunFailed) or is_checkpoint(error) else BAD_INPUT) from None


def is_known(error: BaseException) -> bool:
    """Whether an error's message was written for people."""
    return type(error).__module__.partition(".")[0] in OURS or isinstance(error, OSError)


def is_checkpoint(error: BaseException) -> bool:
    """Whether a model's files are at fault, and not the command; by name, since importing the class takes a while."""
    return any(base.__name__ == "CheckpointError" for base in type(error).__mro__)


def show(error: BaseException) -> None:
    """Print an error's message; with --debug where it came from, too."""
    if os.environ.get(DEBUG):
        traceback.print_exception(error, file=sys.stderr)
    mark = typer.style("error:", fg="red", bold=True)
    typer.echo(f"{mark} {error}", err=True)
    if not os.environ.get(DEBUG) and isinstance(error, RunFailed):
        typer.echo("  (--debug shows where it came from)", err=True)
