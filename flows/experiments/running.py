"""One experiment as a run: the stages of its arms, the table of their figures, its page. Order only.

visloop experiment gamma-sweep --profile demo
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.experiments.catalogue import QUESTIONS, find
from flows.experiments.contract import quickened
from flows.profiles.loading import Profile, ProfileError
from flows.recording import recorded_run
from storage import runs
from tasks.analysis.findings import Findings, FindingsResult, conclude, findings_of
from tasks.report.experiment import Report, markdown, write_page
from tasks.stage.progress import create_markdown
from tasks.stage.runtime import use_runtime

log = logging.getLogger(__name__)


@flow(
    name="experiment",
    flow_run_name="{name}-{profile.name}-seed-{profile.seed}",
    # One search at a time, because seconds are measured.
    task_runner=ThreadPoolTaskRunner(max_workers=1),  # type: ignore[arg-type]
)
def experiment(
    name: str, profile: Profile, quick: bool = False, overrides: Sequence[str] = (), given: Sequence[str] = ()
) -> str:
    """Run an experiment; returns the run's id.

    Args:
        name: of the experiment, see flows/experiments/catalogue.py.
        profile: models, images, and the settings that the experiment does not vary.
        quick: small numbers and fewer arms, to check that everything works.
        overrides: the settings of `--set`, shown in the command that repeats the run.
        given: the values of `--with`: other profiles, raters' files, strategies.
    """
    run_id, findings, report = recorded(name, profile, quick, overrides, given)
    create_markdown(f"experiment-{name}", markdown(findings, report), QUESTIONS[name])
    return run_id


def recorded(
    name: str, profile: Profile, quick: bool = False, overrides: Sequence[str] = (), given: Sequence[str] = ()
) -> tuple[str, Findings, Report]:
    """Run the experiment as one recorded run and write its page: (run id, figures, report)."""
    profile = quickened(profile) if quick else profile
    with recorded_run(f"{profile.name} experiment {name}", profile) as run_id:
        log.info("run %s", run_id)
        concluded = carried_out(name, profile, quick, given)
    findings = findings_of(concluded)
    report = reported(name, findings, profile, quick, overrides, given)
    runs.finish_run(run_id, "completed", message=report.paragraph)
    write_page(run_id, findings, report)
    return run_id, findings, report


def carried_out(name: str, profile: Profile, quick: bool, given: Sequence[str] = ()) -> FindingsResult:
    """All stages of an experiment; inside `tasks.stage.plan.planning()` nothing is computed.

    Raises:
        ProfileError: values are given to an experiment that takes none.
    """
    definition = find(name, profile.task)
    if given and definition.run_with is None:
        raise ProfileError(f"experiment {name} takes nothing by --with; {' '.join(given)} was given")
    with use_runtime(profile.runtime):
        evidence = definition.run_with(profile, quick, given) if definition.run_with else definition.run(profile, quick)
        return conclude.with_label(name)(evidence, experiment=name, seed=profile.seed)


def reported(
    name: str,
    findings: Findings,
    profile: Profile,
    quick: bool,
    overrides: Sequence[str] = (),
    given: Sequence[str] = (),
) -> Report:
    """The report of an experiment: question, method, conclusion, and the command that repeats it."""
    definition = find(name, profile.task)
    settings = "".join(f" --with {shlex.quote(text)}" for text in given)
    settings += "".join(f" --set {shlex.quote(text)}" for text in overrides)
    again = f"visloop experiment {name} --profile {profile.name}{' --quick' if quick else ''}{settings}"
    method = f"{definition.method} With --quick: too little to believe a figure." if quick else definition.method
    return Report(
        name,
        QUESTIONS[name],
        method,
        definition.columns,
        (definition.plot, *definition.more_plots),
        definition.selection,
        definition.answer(findings),
        again,
    )
