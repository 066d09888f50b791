"""benchmarks.methods goes on with what is missing, and counts a run only for the profile and models that it measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import methods

BOTH = ["--methods", "demo", "demo-sentinel", "--seeds", "0", "1"]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Runs that take no time, and which were made, in order."""
    made: list[tuple[str, int]] = []

    def run_case(case: methods.Case) -> dict[str, Any]:
        made.append((case.method, case.seed))
        if len(made) == 3:
            raise KeyboardInterrupt
        metrics = [
            [subject, "greedy", "chair", metric, value, 0.0, 1.0]
            for subject in ("base", "round-1")
            for metric, value in (("chair_i", 0.2), ("recall", 0.9), ("length", 12.0))
        ]
        return {
            "method": case.method, "seed": case.seed, "inputs": case.inputs, "task": "captions", "seconds": 60.0,
            "metrics": metrics, "against_base": [["round-1", "greedy", "chair_i", -0.1, -0.2, -0.05]],
            "decisions": [["round-1", True, "promoted"]],
        }  # fmt: skip

    monkeypatch.setattr(methods, "run_case", run_case)
    return made


def test_a_killed_command_goes_on_with_what_is_missing(home: Path, tmp_path: Path, measured, capsys) -> None:
    out = ["--out", str(tmp_path / "methods.json")]
    with pytest.raises(KeyboardInterrupt):
        methods.main([*BOTH, *out])
    assert measured == [("demo", 0), ("demo-sentinel", 0), ("demo", 1)], "a seed of every method first"
    assert "missing  demo, seed 0: time not known yet" in capsys.readouterr().out
    methods.main([*BOTH, *out, "--status"])
    status = capsys.readouterr().out
    assert "done     demo-sentinel, seed 0: 60 s" in status
    assert "2 of 4 runs done in 2 minutes; 2 missing, about 2 minutes" in status
    assert len(measured) == 3, "the status runs nothing"
    methods.main([*BOTH, *out])
    assert measured[3:] == [("demo", 1), ("demo-sentinel", 1)]
    page = capsys.readouterr().out
    assert "| SENTINEL | round-1, greedy | 20.0" in page and "4 of 4 runs done" in page
    assert len(json.loads((tmp_path / "methods.json").read_text())["runs"]) == 4


def test_runs_of_another_profile_are_not_counted_and_other_options_refused(
    home: Path, tmp_path: Path, measured, capsys
) -> None:
    file = tmp_path / "methods.json"
    out = ["--out", str(file), "--seeds", "0", "--methods", "demo"]
    methods.main(out)
    results = json.loads(file.read_text())
    results["runs"][0]["inputs"] = "of another model"
    file.write_text(json.dumps(results))
    methods.main([*out, "--status"])
    text = capsys.readouterr().out
    assert "missing  demo, seed 0: about 60 s" in text
    assert "1 runs of other models or settings are not counted" in text
    with pytest.raises(SystemExit, match=r"was measured with scenes 500: give the same, another --out, or --fresh"):
        methods.main([*out, "--scenes", "20"])


def test_every_method_and_control_is_a_run_of_its_own(home: Path, tmp_path: Path) -> None:
    options = methods.parsed(["--out", str(tmp_path / "methods.json")])
    cases = [methods.case_of(method, 0, options) for method in options.methods]
    assert len({case.inputs for case in cases}) == len(cases)
    by_method = {case.method: case.profile for case in cases}
    assert {case.profile.rounds for case in cases if " " in case.method} == {1}
    assert by_method["demo random"].search.guide == by_method["demo-vimar random"].search.guide == "random"
    assert by_method["demo gamma 0"].value.gamma == 0
    assert by_method["demo greedy"].search.choose == "greedy"
    assert by_method["demo-sentinel"].finetune.method == "sentinel"


def test_no_run_begins_after_the_given_time(home: Path, tmp_path: Path, measured) -> None:
    methods.main([*BOTH, "--out", str(tmp_path / "methods.json"), "--minutes", "0"])
    assert measured == []
