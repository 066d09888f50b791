"""A run of a flow in the store: begun, and marked failed with its reason if it fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from flows.profiles.loading import Profile
from storage import runs
from tasks.stage.calls import run_recording


@contextmanager
def recorded_run(name: str, profile: Profile) -> Iterator[str]:
    """Stage calls inside belong to a new run, whose id this is; whoever succeeds reports it by `runs.finish_run`."""
    run_id = runs.start_run(name, profile.model_dump_json())
    try:
        with run_recording(run_id):
            yield run_id
    except BaseException as error:
        runs.finish_run(run_id, "failed", message=f"{type(error).__name__}: {error}")
        raise
