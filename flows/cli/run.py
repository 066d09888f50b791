"""Commands that run something: run, demo, make-demo-data."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.errors import RunFailed, is_known
from flows.cli.output import console, print_rounds

if TYPE_CHECKING:
    from flows.profiles.loading import Profile

ProfileName = Annotated[
    str, typer.Argument(metavar="PROFILE", help="A shipped profile (demo, folder, visvm-llava-next-7b) or a YAML file.")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Override a setting; may be given many times.")
]
Rounds = Annotated[int | None, typer.Option("--rounds", min=1, help="Rounds at most; the profile's if left out.")]
_QUIET = {
    # Stages print what they did; Prefect's own line for each would repeat it.
    "PREFECT_LOGGING_LOGGERS_PREFECT_TASK_RUNS_LEVEL": "WARNING",
    # A temporary server prints tracebacks when it is stopped at the end of a run.
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
}


def run(profile: ProfileName, overrides: Overrides = None, rounds: Rounds = None) -> None:
    """Run the whole loop of a profile.

    Sample, roll out, label, train the value model, search, fine-tune, measure, promote; round after round.

    What was computed before is not computed again; a killed run resumes by the same command.

    Examples:

        visloop run demo

        visloop run folder --set data.train.root=~/pictures --rounds 1
    """
    execute(load(profile, overrides, rounds))


def demo(overrides: Overrides = None, rounds: Rounds = None) -> None:
    """Run the demo, offline, in minutes.

    The whole loop on drawn scenes with tiny models; the same as `visloop run demo`.

    Examples:

        visloop demo

        visloop demo --set search.candidates=4
    """
    execute(load("demo", overrides, rounds))


def execute(profile: Profile) -> None:
    """Run a profile and print how it went; shared by `visloop run` and `prefect run`."""

    def start() -> str:
        from flows.self_training import self_training

        return self_training(profile).run_id

    run_id = start_flow(start)
    from tasks.report.run_report import run_rows

    print_rounds(run_rows(run_id))
    report = _report_path(run_id)
    console().print(f"run {run_id}, report {report}" if report else f"run {run_id}", soft_wrap=True)


def start_flow(start: Callable[[], str]) -> str:
    """The id of the run that `start`, which imports a flow and calls it, gives; its errors name what ran."""
    for name, value in _QUIET.items():  # before Prefect is first imported
        os.environ.setdefault(name, value)
    try:
        with _no_heartbeat():
            return start()
    except Exception as error:
        from storage import runs

        latest = runs.latest_run()
        hint = f"\n  what ran: visloop show {latest.run_id}; the same command resumes" if latest else ""
        if is_known(error):
            raise RunFailed(f"{error}{hint}") from error
        raise


def _no_heartbeat() -> AbstractContextManager[object]:
    """Nobody listens to a temporary server's heartbeats, and a flow waits up to a second for its last one."""
    from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    return nullcontext() if PREFECT_API_URL.value() else temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None})


def make_demo_data(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write; made if it is not there.")],
    images: Annotated[int, typer.Option(min=20, help="Scenes in all, over train, val and test.")] = 4000,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another data set.")] = 0,
) -> None:
    """Write drawn scenes as a COCO data set.

    Images, instances and captions in COCO's layout: any COCO tool reads it.

    Examples:

        visloop make-demo-data scenes --images 400 --seed 1
    """
    from tasks.demo.dataset import write_demo_dataset

    counts = write_demo_dataset(folder, images, seed)
    typer.echo(f"{folder}: " + ", ".join(f"{count} {split}" for split, count in counts.items()))


def load(name: str, overrides: list[str] | None, rounds: int | None = None) -> Profile:
    """The profile, checked."""
    from flows.profiles.loading import load_profile

    return load_profile(name, overrides or (), rounds)


def _report_path(run_id: str) -> Path | None:
    """The run's report, if there is one."""
    from storage.runs import run_folder

    path = run_folder(run_id) / "report.html"
    return path if path.is_file() else None
