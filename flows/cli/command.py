"""`visloop`: the command. Starts in a blink: what a command needs is imported when it runs, not before."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from flows.cli import caption as captioning
from flows.cli import compare as comparing
from flows.cli import experiment as experimenting
from flows.cli import maintain as keeping
from flows.cli import new as making
from flows.cli import plan as planning
from flows.cli import run as running
from flows.cli import show as looking
from flows.cli.errors import DEBUG, Commands

app = typer.Typer(
    cls=Commands,
    name="visloop",
    help="Self-training for vision-language models: sample, reward, search, fine-tune, measure, repeat."
    "\n\nExamples:\n\n    visloop demo\n\n    visloop plan demo --set search.candidates=4\n\n    visloop show latest",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)

for command in (
    running.run,
    running.demo,
    planning.plan,
    making.init,
    comparing.compare,
    experimenting.experiment,
    looking.runs,
    looking.show,
    looking.report,
    looking.tables,
    looking.query,
    captioning.caption,
    running.make_demo_data,
    keeping.doctor,
    keeping.verify,
    keeping.gc,
):
    app.command(command.__name__.replace("_", "-"))(command)


def _print_version(wanted: bool) -> None:
    """Print the version and leave."""
    if wanted:
        typer.echo(f"visloop {importlib.metadata.version('visloop')}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error came from.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Options of every command."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script. `--debug` may stand anywhere."""
    os.environ.setdefault("DO_NOT_TRACK", "1")  # Prefect's client would report its use; 0 allows it
    given = list(sys.argv[1:] if arguments is None else arguments)
    if "--debug" in given:
        os.environ[DEBUG] = "1"
        given = [argument for argument in given if argument != "--debug"]
    app(args=given, prog_name="visloop")


if __name__ == "__main__":
    main()
