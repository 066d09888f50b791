"""What an experiment is, and what --quick does to a profile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from flows.profiles.loading import Profile
from flows.profiles.varied import UNCHECKED_VALUE, varied
from tasks.analysis.findings import Evidence, Findings
from tasks.report.experiment import Selection
from tasks.report.experiment_figures import Plot

Run = Callable[[Profile, bool], list[Evidence]]
RunWith = Callable[[Profile, bool, Sequence[str]], list[Evidence]]

# Upper limits that --quick sets: enough to check that everything works, too little to trust a figure.
QUICK = {
    "sample": {"images": 40},
    "evaluate": {"images": 24, "bootstrap": 200},
    "value": {"epochs": 1},
}


class Experiment(NamedTuple):
    """One question, how it is answered, and the conclusion from its figures.

    `run(profile, quick)` runs the arms' stages and returns their evidence, the reference first; with `quick` it may leave arms
    out. It must be plannable: no decision in it may depend on a figure that is not known in a plan.
    """

    run: Run
    answer: Callable[[Findings], str]  # a paragraph, from the figures alone
    columns: tuple[str, ...]  # metrics of the table
    plot: Plot
    method: str  # what was done, in a few sentences
    more_plots: tuple[Plot, ...] = ()
    selection: Selection | None = None  # arms of the first table; None: all
    run_with: RunWith | None = None  # `run` with the values of --with; None: the experiment takes none
    on_answers: Experiment | None = None  # its form for a profile that answers questions; None: it describes images


def quickened(profile: Profile) -> Profile:
    """The profile with small numbers; the health check of V is off, because V has too little to learn from."""
    smaller = {
        section: {name: min(limit, getattr(getattr(profile, section), name)) for name, limit in limits.items()}
        for section, limits in QUICK.items()
    }
    smaller["value"] |= UNCHECKED_VALUE
    return varied(profile, rollout={"temperatures": profile.rollout.temperatures[-2:]}, **smaller)
