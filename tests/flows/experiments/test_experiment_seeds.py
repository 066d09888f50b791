"""The benchmark of all experiments: which seeds it runs, what it keeps of an earlier run, and what it prints of time."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import experiments
from flows.experiments.catalogue import QUESTIONS
from storage.schema import Finding


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds that were run, in order; a run gives one figure, its seed."""
    seeds: list[int] = []

    def recorded(name, profile, **_):
        seeds.append(profile.seed)
        row = Finding(name, "greedy", None, profile.seed, "chair_i", 0.1 * (1 + profile.seed), 0.0, 0.5, 9)
        return "run", SimpleNamespace(rows=[row], arms=["greedy"]), SimpleNamespace(paragraph="Greedy.")

    monkeypatch.setattr(experiments, "recorded", recorded)
    monkeypatch.setattr(
        experiments,
        "profile_of",
        lambda seed, scenes, overrides: experiments.on_scenes("demo", seed, scenes, overrides),
    )
    monkeypatch.setattr(experiments, "models_digest", lambda seed: f"models {seed}")
    monkeypatch.setattr(experiments, "given_to", lambda name, seed: [])
    return seeds


def test_the_claim_runs_on_three_seeds_and_they_are_known_experiments() -> None:
    assert set(experiments.CLAIM) < set(QUESTIONS) and experiments.SEEDS == (0, 1, 2)


def test_a_broken_run_goes_on_where_it_stopped(runs: list[int], tmp_path: Path) -> None:
    experiments.run_seeds("cost", (0,), 30, [], tmp_path)
    results = experiments.run_seeds("cost", (0, 1), 30, [], tmp_path)
    assert runs == [0, 1] and results["seeds"] == [0, 1] and [row["seed"] for row in results["rows"]] == [0, 1]
    assert json.loads((tmp_path / "cost.json").read_text()) == results
    assert experiments.run_seeds("cost", (0, 1), 30, [], tmp_path) == results and runs == [0, 1]


def test_other_models_scenes_or_settings_are_run_again(
    runs: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiments.run_seeds("cost", (0, 1), 30, [], tmp_path)
    monkeypatch.setattr(experiments, "models_digest", lambda seed: f"models {seed}{' new' if seed else ''}")
    assert len(experiments.run_seeds("cost", (0, 1), 30, [], tmp_path)["rows"]) == 2 and runs == [0, 1, 1]
    experiments.run_seeds("cost", (0, 1), 40, [], tmp_path)
    experiments.run_seeds("cost", (0, 1), 40, ["sample.images=9"], tmp_path)
    assert runs == [0, 1, 1, 0, 1, 0, 1]


def test_a_seed_whose_models_are_not_built_is_refused_with_the_command(home: Path) -> None:
    with pytest.raises(SystemExit, match=r"lacks policy, policy-cot, scorer: python -m flows.pretrain_demo --seed 1"):
        experiments.profile_of(1, 30, [])


def test_the_total_time_is_that_of_what_is_measured(runs: list[int], tmp_path: Path) -> None:
    for name, took in (("cost", 60.0), ("judge", 180.0)):
        experiments.write({**experiments.run_seeds(name, (0,), 30, [], tmp_path), "seconds": took}, tmp_path)
    text = experiments.total_time(("cost", "judge", "scale"), tmp_path)
    assert text == "2 of 3 experiments are measured; they took 4.0 minutes, judge 3.0 of them"


def test_figures_of_earlier_models_are_called_that_and_nothing_is_concluded(runs: list[int], tmp_path: Path) -> None:
    results = experiments.run_seeds("judge", (0,), 30, [], tmp_path)
    assert not experiments.is_stale(results)
    experiments.write({**results, "models": {"0": "others"}}, tmp_path)
    block = experiments.block("judge", tmp_path)
    assert block.startswith("*Measured with earlier models") and "python -m benchmarks.experiments judge" in block
    assert "| greedy |" in block and "chance" not in block
