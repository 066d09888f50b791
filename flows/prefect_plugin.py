"""Adds `prefect run self-training --profile demo --set a.b=c` inside this checkout: the same as `visloop run`.

Prefect calls `setup_environment` of every package in the entry-point group `prefect.plugins` when it starts, if the
pyproject.toml of the current folder has `[tool.prefect.plugins] enabled = true`. Its command line has no public way to
add a command, so a private name is used; where that has moved, `prefect` works on without `run`, says so, and a test
fails. `visloop run` never depends on this.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from prefect.plugins import register_hook

FLOWS = ("self-training",)


@register_hook
def setup_environment(*, ctx: Any) -> None:
    """Add the command, in Prefect's own command line only: workers and flows have no use for it."""
    if Path(sys.argv[0]).name not in ("prefect", "prefect.exe"):
        return
    try:
        commands = prefect_commands()
    except (ImportError, AttributeError) as error:
        sys.stderr.write(f"visloop: this Prefect takes no `run` command ({error}); use `visloop run`\n")
        return
    if "run" not in list(commands):
        commands.command(app, name="run")


def prefect_commands() -> App:
    """Prefect's own commands. The private name lives in this one place."""
    from prefect.cli._app import _app

    if not isinstance(_app, App):
        raise AttributeError(f"prefect.cli._app._app is a {type(_app).__name__}, not a cyclopts App")
    return _app


app = App(name="run", help="Run a flow of this checkout, here and now.", version_flags=[])


@app.default
def run(
    flow: str,
    *,
    profile: str = "demo",
    overrides: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = (),
    rounds: int | None = None,
) -> None:
    """Run a flow of this checkout, here and now.

    Example: prefect run self-training --profile demo --set search.candidates=4

    Parameters
    ----------
    flow
        Which flow: self-training.
    profile
        A shipped profile (demo, folder, visvm-llava-next-7b) or a YAML file.
    overrides
        Override a setting, NAME=VALUE; may be given many times.
    rounds
        Rounds at most; the profile's if left out.
    """
    from flows.cli.command import main
    from flows.cli.errors import BAD_INPUT, nearest

    if flow not in FLOWS:
        sys.stderr.write(f"error: no flow {flow!r}{nearest(flow, FLOWS)}flows here: {', '.join(FLOWS)}\n")
        raise SystemExit(BAD_INPUT)
    given = [argument for override in overrides for argument in ("--set", override)]
    main(["run", profile, *given, *(["--rounds", str(rounds)] if rounds is not None else [])])
