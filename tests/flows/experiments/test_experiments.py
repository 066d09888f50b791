"""Experiments on a small demo: all are planned, which checks the arguments of every stage; some run, with page and command."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.command import app
from flows.experiments.catalogue import QUESTIONS, find
from flows.experiments.contract import quickened
from flows.experiments.running import recorded, reported
from flows.profiles.loading import CHECKOUT, ProfileError, load_profile
from flows.profiles.varied import varied
from storage import catalog, runs
from tasks.analysis.findings import Evidence, conclude
from tasks.report.experiment import PAGE, load_findings, markdown, table
from tasks.stage.plan import planning
from tests.support.tiny_run import tiny

PROFILE = tiny("evaluate.images=10", "sample.images=20")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One store for all experiments: what they share is computed once."""
    folder = tmp_path_factory.mktemp("experiments")
    shutil.copytree(CHECKOUT / "deployments" / "demo" / "policy", folder / "demo-models" / "seed-0" / "policy-third")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VISLOOP_HOME", str(folder))
        yield folder


@cache
def planned(name: str, quick: bool) -> tuple[list[Evidence], list[tuple[str, str]]]:
    """(what its arms would measure, stage and label of every call) of an experiment."""
    with planning() as plan:
        evidence = find(name).run(PROFILE, quick)
        conclude.with_label(name)(evidence, experiment=name, seed=0)
    return evidence, [(entry.stage, entry.label) for entry in plan.entries]


@pytest.mark.parametrize("quick", [False, True], ids=["full", "quick"])
@pytest.mark.parametrize("name", QUESTIONS)
def test_an_experiment_can_be_planned_and_its_arms_differ_in_name(name: str, quick: bool, store: Path) -> None:
    evidence, stages = planned(name, quick)
    assert stages[-1] == ("conclude", name)
    arms = [entry.arm for entry in evidence]
    assert len(set(arms)) == len(arms)
    assert all(entry.x is None or entry.arm.endswith(f"@{entry.x:g}") for entry in evidence)


@pytest.mark.parametrize("name", QUESTIONS)
def test_quick_is_less(name: str, store: Path) -> None:
    assert len(planned(name, True)[1]) <= len(planned(name, False)[1])


def test_there_is_a_module_for_every_question_and_no_other() -> None:
    folder = Path(str(sys.modules["flows.experiments.catalogue"].__file__)).parent
    modules = {path.stem.replace("_", "-") for path in folder.glob("*.py") if "\nEXPERIMENT = " in path.read_text()}
    assert modules == set(QUESTIONS)
    for name, question in QUESTIONS.items():
        experiment = find(name)
        assert question.endswith("?") and experiment.method.endswith(".")
        assert experiment.columns and experiment.plot.metrics


# Kept small: each has a stage that no other has.
RUN = ("value-sanity", "cost", "judge")


@pytest.fixture(scope="module", params=RUN)
def done(request: pytest.FixtureRequest, store: Path) -> tuple[str, str]:
    """(name, run id) of an experiment that was run."""
    return request.param, recorded(request.param, PROFILE, quick=True, overrides=("evaluate.images=10",))[0]


def test_findings_are_a_table_a_paragraph_and_a_page(done: tuple[str, str]) -> None:
    name, run_id = done
    findings, run = load_findings(run_id), runs.load_run(run_id)
    columns, lines = table(findings, find(name).columns)
    assert run.status == "completed" and run.profile == f"demo experiment {name}"
    assert len(run.message) > 80 and not re.search(r"nan|None", run.message), run.message
    assert columns[0] == "arm" and len(columns) > 3 and len(lines) >= 2
    page = (runs.run_folder(run_id) / PAGE).read_text(encoding="utf-8")
    assert re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', page) == [] and "<script" not in page
    assert (
        page.count("<svg role=") == 1 + len(find(name).more_plots)
        and page.count(f"<h1>{QUESTIONS[name].replace(chr(39), '&#39;')}") == 1
    )
    assert f"visloop experiment {name} --profile demo --quick --set evaluate.images=10" in page


def test_findings_can_be_queried(done: tuple[str, str]) -> None:
    _, run_id = done
    rows = catalog.query(f"select arm, metric, value from findings where run_id = '{run_id}'")[1]
    findings = load_findings(run_id)
    assert len(rows) == len(findings.rows) > 10
    assert all(findings.value(arm, metric) == value or value != value for arm, metric, value in rows)


def test_in_prefect_the_plot_is_a_picture_in_the_text(done: tuple[str, str]) -> None:
    name, run_id = done
    findings = load_findings(run_id)
    text = markdown(findings, reported(name, findings, PROFILE, quick=True))
    assert text.startswith(f"**{QUESTIONS[name]}**") and "![" in text and "data:image/png" in text
    assert "\n|---|--:|" in text


def test_again_nothing_is_computed_and_the_figures_are_the_same(done: tuple[str, str]) -> None:
    name, run_id = done
    again, findings, _ = recorded(name, PROFILE, quick=True)
    assert {call.cached for call in runs.stage_runs(again)} == {True}
    assert str(findings.rows) == str(load_findings(run_id).rows)  # as text: a figure that is not a number equals itself


# Those with stages that no other experiment has; the rest is planned above, and run where there is time.
OWN_STAGES = ("forgetting", "human-eval")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in OWN_STAGES else pytest.mark.long)
        for name in QUESTIONS
        if name not in RUN
    ],
)
def test_every_other_experiment_runs_and_has_a_conclusion(name: str, store: Path) -> None:
    run_id, findings, report = recorded(name, PROFILE, quick=True)
    assert len(report.paragraph) > 80 and "not compared" not in report.paragraph, report.paragraph
    assert (runs.run_folder(run_id) / PAGE).is_file() and len(findings.arms) >= 2


def test_the_document_has_a_section_for_each_and_its_figures_are_those_of_the_results() -> None:
    from benchmarks.experiments import PAGE as DOCUMENT
    from benchmarks.experiments import RESULTS, filled

    text = DOCUMENT.read_text(encoding="utf-8")
    assert re.findall(r"^## ([\w-]+)$", text, flags=re.M) == list(QUESTIONS)
    assert filled(text, RESULTS) == text, "run python -m benchmarks.experiments --fill"


def test_quick_makes_a_profile_smaller_and_never_larger() -> None:
    quick = quickened(load_profile("demo"))
    assert quick.evaluate.images == 24 and len(quick.rollout.temperatures) == 2
    assert quickened(PROFILE).evaluate.images == 10 and quickened(quick) == quick
    with pytest.raises(ValueError, match="gamma"):
        varied(PROFILE, value={"gamma": 2})


# The command.


def test_the_command_lists_the_experiments(home: Path) -> None:
    for arguments in (["experiment"], ["experiment", "--list"]):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0 and all(name in result.output for name in QUESTIONS)
    assert not (home / "runs").exists()


def test_a_wrong_name_is_refused_before_anything_starts(home: Path) -> None:
    with pytest.raises(ProfileError, match="did you mean gamma-sweep"):
        find("gama-sweep")
    result = CliRunner().invoke(app, ["experiment", "gama-sweep"])
    assert result.exit_code == 2 and "gamma-sweep" in result.stderr and not (home / "runs").exists()


def test_the_command_runs_the_flow_and_prints_table_paragraph_and_page(
    store: Path, prefect_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its stages are cached: the flow computes nothing."""
    recorded("cost", PROFILE, quick=True)
    monkeypatch.setattr("flows.cli.experiment.load", lambda name, overrides: PROFILE)
    result = CliRunner().invoke(app, ["experiment", "cost", "--quick"])
    assert result.exit_code == 0, result.output
    lines = result.output.strip().splitlines()
    assert lines[0].split()[0] == "arm" and "images in flight" in result.output
    assert Path(lines[-1].partition("page ")[2]).is_file()
