"""Deployed as the README describes: a real server, a real worker, a run with a changed parameter, its artifacts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from flows.profiles.loading import Profile, load_profile

CHECKOUT = Path(__file__).parent.parent.parent
PREFECT = str(Path(sys.executable).parent / "prefect")
SMALL = (
    "data.train.images=40", "data.benchmark.images=40", "sample.images=8", "evaluate.images=4", "health.images=2",
    "rollout.temperatures=[0.6]", "health.action=warn", "value.min_spearman=-1", "value.min_spread=0", "value.epochs=1",
    "finetune.epochs=1", "evaluate.bootstrap=100", "runtime.shards=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def environment(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a shell has whose PREFECT_API_URL is set."""
    store = str(tmp_path_factory.mktemp("store"))
    return {**os.environ, "PREFECT_API_URL": prefect_server, "VISLOOP_HOME": store, "PREFECT_LOGGING_LEVEL": "WARNING"}


def prefect(environment: dict[str, str], *arguments: str) -> str:
    """A command of Prefect's, in the root of the checkout."""
    done = subprocess.run(
        [PREFECT, *arguments], cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def deployed(prefect_server: str, environment: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Both deployments, by name."""
    prefect(environment, "work-pool", "create", "visloop", "--type", "process")
    prefect(environment, "--no-prompt", "deploy", "--prefect-file", "deployments/prefect.yaml", "--all")
    deployments = httpx.post(f"{prefect_server}/deployments/filter", json={}).raise_for_status().json()
    return {deployment["name"]: deployment for deployment in deployments}


@pytest.fixture
def worker(environment: dict[str, str]) -> Iterator[None]:
    """A process worker of the pool."""
    process = subprocess.Popen(
        [PREFECT, "worker", "start", "--pool", "visloop"], cwd=CHECKOUT, env=environment, start_new_session=True
    )
    yield
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:  # it may wait for the server, and the test is over
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_the_file_names_what_there_is() -> None:
    described = yaml.safe_load((CHECKOUT / "deployments" / "prefect.yaml").read_text())
    from prefect.flows import load_flow_from_entrypoint

    for deployment in described["deployments"]:
        assert load_flow_from_entrypoint(deployment["entrypoint"]).name == "self-training"
        assert deployment["work_pool"]["name"] == "visloop"
        assert deployment["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}


def test_the_form_starts_with_the_demo_profile_and_the_schedule_is_off(deployed: dict[str, dict[str, Any]]) -> None:
    assert set(deployed) == {"demo", "nightly"}
    schema = deployed["demo"]["parameter_openapi_schema"]
    assert Profile.model_validate(schema["properties"]["profile"]["default"]) == load_profile("demo")
    assert [schedule["active"] for schedule in deployed["nightly"]["schedules"]] == [False]
    assert deployed["demo"]["global_concurrency_limit"]["limit"] == 1


def test_a_value_out_of_bounds_is_refused_before_anything_starts(
    prefect_server: str, deployed: dict[str, dict[str, Any]]
) -> None:
    profile = load_profile("demo").model_dump(mode="json")
    profile["search"]["candidates"] = 0
    answer = start(prefect_server, deployed["demo"]["id"], profile)
    assert answer.status_code in (409, 422)
    assert "candidates" in answer.text and "0 is less than the minimum of 1" in answer.text


@pytest.mark.timeout(300)
def test_a_run_with_a_changed_parameter_completes_and_leaves_its_artifacts(
    prefect_server: str, deployed: dict[str, dict[str, Any]], worker: None
) -> None:
    profile = load_profile("demo", [*SMALL, "search.candidates=3"], rounds=1).model_dump(mode="json")
    started = start(prefect_server, deployed["demo"]["id"], profile).raise_for_status().json()
    run = wait_for(f"{prefect_server}/flow_runs/{started['id']}")
    assert run["state_type"] == "COMPLETED", run["state"]
    assert run["parameters"]["profile"]["search"]["candidates"] == 3
    assert run["name"] == "demo-seed-0"
    artifacts = httpx.post(
        f"{prefect_server}/artifacts/filter", json={"artifacts": {"flow_run_id": {"any_": [run["id"]]}}}
    ).json()
    (summary,) = [artifact for artifact in artifacts if artifact["key"] == "round-1"]
    assert summary["type"] == "markdown"
    for text in ("| base, greedy |", "| base + search (visvm) |", "| round 1, greedy |", "data:image/png;base64,"):
        assert text in summary["data"]


def start(server: str, deployment: str, profile: dict[str, Any]) -> httpx.Response:
    """Ask the API for a run of a deployment, as the form does."""
    body = {"parameters": {"profile": profile}, "state": {"type": "SCHEDULED"}, "enforce_parameter_schema": True}
    return httpx.post(f"{server}/deployments/{deployment}/create_flow_run", json=body)


def wait_for(address: str, limit: float = 240) -> dict[str, Any]:
    """The flow run once it has ended."""
    until = time.monotonic() + limit
    while time.monotonic() < until:
        run = httpx.get(address).raise_for_status().json()
        if run["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
            return run
        time.sleep(1)
    raise TimeoutError(f"{address}: {run['state_name']} after {limit} s")
