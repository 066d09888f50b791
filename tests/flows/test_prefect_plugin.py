"""`prefect run`: sugar over a private name of Prefect's, so this fails loudly when that name moves."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path

import cyclopts
import pytest

from flows import prefect_plugin

CHECKOUT = Path(__file__).parent.parent.parent


def test_prefects_private_command_line_is_still_where_we_take_it() -> None:
    commands = prefect_plugin.prefect_commands()
    assert isinstance(commands, cyclopts.App), "prefect.cli._app._app moved: adapt flows/prefect_plugin.py"
    assert "deployment" in list(commands)
    assert "run" not in list(commands), "Prefect has a `run` of its own now: drop ours"


def test_the_plugin_is_declared_and_switched_on() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["prefect.plugins"] == {"visloop": "flows.prefect_plugin"}
    assert project["tool"]["prefect"]["plugins"]["enabled"] is True


def _installed() -> bool:
    return any(point.name == "visloop" for point in importlib.metadata.entry_points(group="prefect.plugins"))


@pytest.mark.skipif(not _installed(), reason="the checkout is not installed: pip install -e .")
def test_prefect_run_checks_a_profile_as_visloop_does() -> None:
    prefect = str(Path(sys.executable).parent / "prefect")
    command = [prefect, "run", "self-training", "--profile", "demo", "--set", "search.candidats=4", "--rounds", "1"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "did you mean search.candidates?" in done.stderr


def test_the_error_of_an_unknown_flow_lists_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        prefect_plugin.run("self-trainin")
    assert ended.value.code == 2
    assert "did you mean self-training?" in capsys.readouterr().err


def test_run_hands_everything_on(monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[list[str]] = []
    monkeypatch.setattr("flows.cli.command.main", lambda arguments: handed.append(list(arguments)))
    prefect_plugin.run("self-training", profile="folder", overrides=("a.b=1", "c=2"), rounds=3)
    assert handed == [["run", "folder", "--set", "a.b=1", "--set", "c=2", "--rounds", "3"]]
