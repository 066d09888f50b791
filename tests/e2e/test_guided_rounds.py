"""Guided rounds of the value model: what they add to a round, and that without them a round is what it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from storage import catalog, checkpoints, runs
from storage.artifacts import ArtifactRef
from tasks.core.models.value import read_spec
from tasks.stage.calls import run_recording
from tasks.stage.plan import planning
from tests.support.tiny_run import calls, computed, tiny

STATES = ("value.reads=policy_states", "value.lr=1e-3", "value.epochs=5", "evaluate.decodings=[greedy]")


def planned(*overrides: str) -> list[tuple[str, str]]:
    """(stage, label) in the order of the loop."""
    from flows.self_training import plan

    with planning() as planned_calls:
        plan(tiny(*overrides))
    return [(entry.stage, entry.label) for entry in planned_calls.entries]


def guided(number: int) -> list[tuple[str, str]]:
    return [(stage, f"guided-{number}") for stage in ("search", "guided_rollouts", "score", "shape_rewards")]


def run(*overrides: str) -> str:
    from flows.self_training import improve

    profile = tiny(*overrides)
    run_id = runs.start_run(profile.name, profile.model_dump_json())
    with run_recording(run_id):
        improve(profile, run_id)
    return run_id


def test_without_guided_rounds_the_order_is_that_of_the_method(home: Path) -> None:
    stages = planned()
    at = stages.index(("train_value", ""))
    assert stages[at - 3 : at + 3] == [
        ("rollout", ""), ("score", ""), ("shape_rewards", ""), ("train_value", ""), ("search", ""), ("finetune", ""),
    ]  # fmt: skip
    assert not any("guided" in label for _, label in stages)


@pytest.mark.parametrize("rounds", [1, 2])
def test_a_guided_round_searches_rewards_and_trains_anew_and_the_last_value_model_guides(
    home: Path, rounds: int
) -> None:
    stages = planned(f"value.guided_rounds={rounds}")
    plain = planned()
    at = plain.index(("train_value", ""))
    expected = [("train_value", "before guided-1"), *guided(1)]
    if rounds == 2:
        expected += [("train_value", "before guided-2"), *guided(2)]
    assert stages == plain[:at] + expected + plain[at:]


def test_no_guided_round_without_a_value_model(home: Path) -> None:
    assert planned("value.guided_rounds=2", "search.strategy=clip_prm") == planned("search.strategy=clip_prm")


def test_a_run_with_a_guided_round_adds_to_what_was_done_without_one(home: Path) -> None:
    run(*STATES)
    second = run(*STATES, "value.guided_rounds=1")
    done = [(stage, label) for _, stage, label, shard in computed(second) if shard is None]
    # The first value model is the one of the run before: how often V is trained is no matter of one training.
    assert [call for call in done if call[0] in ("train_value", "shape_rewards", "guided_rollouts")] == [
        ("guided_rollouts", "guided-1"), ("shape_rewards", "guided-1"), ("train_value", ""),
    ]  # fmt: skip
    outputs = {(call.stage, call.label): json.loads(call.outputs) for call in calls(second) if call.shard is None}
    value = ArtifactRef.model_validate(outputs["train_value", ""]["value"])
    assert read_spec(checkpoints.folder(value)).reads == "policy_states"
    assert outputs["train_value", ""]["value"] != outputs["train_value", "before guided-1"]["value"]
    ((own, searched),) = catalog.query(
        "select count(*) filter (decode not like 'guided%'), count(*) filter (decode = 'guided-1') "
        f"from rollouts where round = 1 and run_id = '{second}'"
    )[1]
    assert (own, searched) == (48, 24)
