"""Stages as Prefect tasks: the same results, states named `Cached`, errors unchanged, arrows in the graph."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from storage import runs
from tasks.stage.calls import run_recording
from tasks.stage.runtime import RuntimeConfig, use_runtime
from tests.support import toy_stages as toy
from tests.support.toy_stages import Config, computed

pytestmark = pytest.mark.usefixtures("home", "prefect_server")


def make_flow(body, **options):
    from prefect import flow

    return flow(name="toy", validate_parameters=False, **options)(body)


def recorded_states(flow_run_id, expected: int) -> tuple[Counter[str], dict[str, set[str]]]:
    """(count of state names, task run name -> names upstream of it), once the server has written them all."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    with get_client(sync_client=True) as client:
        for _ in range(300):
            task_runs = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id])))
            if len(task_runs) == expected and all(run.state and run.state.is_final() for run in task_runs):
                break
            time.sleep(0.2)
    names = {run.id: run.name for run in task_runs}
    upstream = {
        run.name: {names[item.id] for items in run.task_inputs.values() for item in items if hasattr(item, "id")}
        for run in task_runs
    }
    return Counter(run.state_name for run in task_runs), upstream


def test_a_flow_computes_once_then_shows_cached_tasks_with_arrows_between_them() -> None:
    from prefect.runtime import flow_run

    ids = []

    def body() -> object:
        ids.append(flow_run.id)
        run_id = runs.start_run("toy", "{}")
        with run_recording(run_id):
            output = toy.loop(Config())
        return output, [(c.stage, c.shard, c.cached) for c in runs.stage_runs(run_id)]

    looping = make_flow(body)
    first, calls = looping()
    again, calls_again = looping()
    assert first == again == toy.loop(Config())
    assert sorted(computed()) == sorted(["draw", "grow0of3", "grow1of3", "grow2of3", "count"])
    assert {cached for *_, cached in calls} == {False}
    assert {cached for *_, cached in calls_again} == {True}
    assert sorted(calls, key=str)[2:] == [("gather", None, False)] + [("grow", i, False) for i in range(3)]
    states, upstream = recorded_states(ids[1], expected=6)
    assert states == {"Cached": 6}
    assert upstream["grow 2/3"] == {"draw"}
    assert upstream["gather grow"] == {"grow 1/3", "grow 2/3", "grow 3/3"}
    assert upstream["count"] == {"gather grow"}


def test_the_original_error_reaches_the_caller_of_the_flow() -> None:
    with pytest.raises(LookupError, match="the original words"):
        make_flow(lambda: toy.fail(toy.draw(Config()).samples))()


def test_when_a_shard_fails_the_others_finish_and_its_error_comes_out() -> None:
    def body() -> object:
        with use_runtime(RuntimeConfig(shards=3)):
            return toy.fail_in_shard_1.over_shards(toy.draw(Config()).samples)

    looping = make_flow(body)
    with pytest.raises(LookupError, match="the second shard"):
        looping()
    assert set(computed()) == {"draw", "shard0", "shard1", "shard2"}
    with pytest.raises(LookupError, match="the second shard"):
        looping()
    assert Counter(computed()) == {"draw": 1, "shard0": 1, "shard1": 2, "shard2": 1}
