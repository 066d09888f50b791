"""`visloop compare`: its options reach the experiment, and a wrong one is explained before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli.command import app


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The arguments of every experiment that the command starts; none is run."""
    started: list[dict[str, Any]] = []
    monkeypatch.setattr(
        "flows.cli.compare.run_experiment",
        lambda name, profile, **options: started.append({"name": name, "profile": profile, **options}),
    )
    return started


def test_the_command_runs_the_experiment_with_its_options(home: Path, calls: list[dict[str, Any]]) -> None:
    arguments = ["compare", "demo", "--strategies", "best_of_n,visvm:end=vote", "--strategies", "vimar"]
    arguments += ["--budgets", "1,3", "--images", "9", "--tokens", "120", "--set", "seed=3"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    (call,) = calls
    assert call["name"] == "compare"
    assert call["given"] == ["best_of_n", "visvm:end=vote", "vimar", "budgets=1,3", "tokens=120.0"]
    assert call["overrides"] == ["seed=3", "evaluate.images=9"]
    assert (call["profile"].evaluate.images, call["profile"].seed) == (9, 3)


def test_without_options_the_experiment_gets_its_defaults(home: Path, calls: list[dict[str, Any]]) -> None:
    assert CliRunner().invoke(app, ["compare", "demo"]).exit_code == 0
    assert (calls[0]["given"], calls[0]["overrides"]) == ([], [])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--budgets", "1,0"], "at least 1"),
        (["--budgets", "few"], "budgets=1,2,4"),
        (["--strategies", "end=vote"], "NAME:end=vote"),
        (["--images", "1"], "--images"),
        (["--tokens", "0"], "--tokens"),
    ],
)
def test_a_wrong_option_is_explained_before_anything_runs(
    options: list[str], message: str, home: Path, calls: list[dict[str, Any]]
) -> None:
    result = CliRunner().invoke(app, ["compare", "demo", *options])
    assert result.exit_code == 2 and message in result.stderr
    assert not calls and not (home / "runs").exists()
