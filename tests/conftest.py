"""A store for every test that uses `home`, one Prefect server for all, one thread for every library.

Most tests need no server: stages run without Prefect, `stage.fn` without a cache. Ask for `prefect_server` only where
a flow runs.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before torch is first imported: on two busy cores, threads that wait for each other cost five times the work.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"
os.environ |= {"DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "visloop"


@pytest.fixture(scope="session", autouse=True)
def _store_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test writes into the checkout's ./artifacts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VISLOOP_HOME", str(tmp_path_factory.mktemp("store")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _runtime_of_the_session() -> Iterator[None]:
    """Every stage that a test calls runs on one CPU thread."""
    from tasks.stage.runtime import RuntimeConfig, use_runtime

    with use_runtime(RuntimeConfig(device="cpu", threads=1, batch_size=16)):
        yield


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store for this test alone."""
    folder = tmp_path / "store"
    monkeypatch.setenv("VISLOOP_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running server; yields its address. From a migrated template it is up in seconds, else in half a minute."""
    import prefect
    from prefect import settings
    from prefect.events.worker import EventsWorker
    from prefect.testing import utilities

    folder = tmp_path_factory.mktemp("prefect")
    template = CACHE / f"prefect-{prefect.__version__}.db"
    database = folder / "prefect-test.db"
    migrated = template.exists()
    if migrated:
        shutil.copy(template, database)
    changed = {
        settings.PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,  # a sync flow waits up to a second for its heartbeat
        settings.PREFECT_SERVER_ANALYTICS_ENABLED: False,
        settings.PREFECT_SERVER_DATABASE_MIGRATE_ON_START: not migrated,
        settings.PREFECT_SERVER_LOGGING_LEVEL: "CRITICAL",
    }
    with pytest.MonkeyPatch.context() as patch, settings.temporary_settings(changed):
        patch.setattr(utilities, "mkdtemp", lambda: str(folder))
        # Nobody reads the events; waiting for each of them on a busy server can take longer than all tests.
        patch.setattr(EventsWorker, "drain_all", lambda *_, **__: None)
        with utilities.prefect_test_harness(server_startup_timeout=180):
            if not migrated:
                _keep(database, template)
            yield settings.PREFECT_API_URL.value()


def _keep(database: Path, template: Path) -> None:
    """Copy the fresh database; rows of a server that runs come along and hurt nobody."""
    template.parent.mkdir(parents=True, exist_ok=True)
    part = template.with_suffix(f".{os.getpid()}")
    source, target = sqlite3.connect(database), sqlite3.connect(part)
    with source, target:
        source.backup(target)
    source.close()
    target.close()
    part.replace(template)


@pytest.hookimpl(tryfirst=True)  # a random order is made of this
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that neither of two processes is left alone with them at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
