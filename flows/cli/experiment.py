"""The experiment command: one question, its arms, a table, a plot and a paragraph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.output import console, print_table
from flows.cli.run import Overrides, load, start_flow

if TYPE_CHECKING:
    from flows.profiles.loading import Profile

Name = Annotated[str | None, typer.Argument(metavar="NAME", help="Which one; all are listed if left out.")]
ProfileOption = Annotated[
    str,
    typer.Option(
        "--profile", metavar="PROFILE", help="A shipped profile (demo, folder, visvm-llava-next-7b) or a file."
    ),
]
Quick = Annotated[bool, typer.Option("--quick", help="Small numbers, fewer arms: see that it works, in seconds.")]
With = Annotated[
    list[str] | None,
    typer.Option(
        "--with",
        metavar="WHAT",
        help="What an experiment takes beside its profile, may be given many times: cross-model and scale other profiles, "
        "for their policies; human-eval the raters' files.",
    ),
]
Listed = Annotated[bool, typer.Option("--list", help="List the experiments.")]


def experiment(
    name: Name = None,
    profile: ProfileOption = "demo",
    quick: Quick = False,
    listed: Listed = False,
    given: With = None,
    overrides: Overrides = None,
) -> None:
    """Run one of the experiments.

    Each answers a question that the papers leave open: a table with intervals, a plot, and a paragraph made of the figures.
    What a run, a comparison or another experiment has computed is not computed again.

    Examples:

        visloop experiment

        visloop experiment gamma-sweep --quick

        visloop experiment budget-curve --profile demo --set evaluate.images=100

        visloop experiment cross-model --profile visvm-llava-next-7b --with other.yaml
    """
    from flows.experiments.catalogue import QUESTIONS, find

    if name is None or listed:
        print_table(["experiment", "question"], [[key, question] for key, question in QUESTIONS.items()], cut=100)
        return
    find(name)  # an unknown name fails before anything starts
    loaded = load(profile, overrides)

    run_experiment(name, loaded, quick=quick, given=given or (), overrides=overrides or ())


def run_experiment(
    name: str, profile: Profile, *, quick: bool = False, given: Sequence[str] = (), overrides: Sequence[str] = ()
) -> None:
    """Run an experiment as a flow and print its answer."""

    def start() -> str:
        from flows.experiments.running import experiment as flow

        return flow(name, profile, quick, tuple(overrides), tuple(given))

    print_findings(start_flow(start), name, quick, profile.task)


def print_findings(run_id: str, name: str, quick: bool, task: str = "captions") -> None:
    """The table, the paragraph and where the page is."""
    from flows.experiments.catalogue import find
    from storage.runs import load_run, run_folder
    from tasks.report.experiment import PAGE, load_findings, table

    experiment = find(name, task)
    titles, lines = table(load_findings(run_id), experiment.columns, experiment.selection)
    print_table(titles, lines)
    console().print()
    console().print(load_run(run_id).message)
    if quick:
        console().print("--quick: too little to believe a figure", style="dim")
    console().print(f"run {run_id}, page {run_folder(run_id) / PAGE}", soft_wrap=True)
