"""Stage calls as Prefect task runs: seen in the UI, retried, run by the flow's task runner.

A hit ends in a state named `Cached`. Arrows in the run graph follow the artifacts: the task that gave an artifact is
upstream of every task that takes it.
"""

from __future__ import annotations

import functools
import logging
from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect import Task, artifacts
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.futures import wait
from prefect.settings import get_current_settings
from prefect.states import Completed

from storage.artifacts import ArtifactError, ArtifactRef, StageOutput
from tasks.stage.calls import Call, carry_out
from tasks.stage.identity import contained
from tasks.stage.quarantine import StageInputError

if TYPE_CHECKING:
    from tasks.stage.stage import Stage

_RETRY_DELAY = 10  # seconds: long enough for a GPU's memory to be freed, or a server to come back
_MAX_FLOWS = 8  # a serving process runs many flows; only the running ones need their arrows
_producers: OrderedDict[str, dict[str, State[Any]]] = OrderedDict()


def run_stage(call: Call) -> StageOutput | State[StageOutput]:
    """What the Prefect task executes, in whatever thread or process its runner chose."""
    _let_our_loggers_speak()
    outcome = carry_out(call, refresh=bool(get_current_settings().tasks.refresh_cache))
    return Completed(name="Cached", data=outcome.output) if outcome.cached else outcome.output


@functools.cache
def _let_our_loggers_speak() -> None:
    """Prefect hands `extra_loggers` its handlers but no level, and the root's swallows what is not a warning."""
    for name in get_current_settings().logging.extra_loggers or ():
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.getLogger("prefect").getEffectiveLevel())


def _worth_retrying(task: Any, task_run: Any, state: State[Any]) -> bool:
    error = state.result(raise_on_failure=False)
    return not isinstance(error, (StageInputError, ArtifactError, TypeError))


@functools.cache
def _task(stage: Stage[Any, Any]) -> Task[[Call], Any]:
    return Task(
        run_stage,
        name=stage.name.replace("_", "-"),
        description=stage.__doc__,
        task_run_name="{call.title}",
        tags=stage.tags,
        retries=stage.retries,
        retry_delay_seconds=_RETRY_DELAY,
        retry_condition_fn=_worth_retrying,
        cache_policy=NO_CACHE,
        persist_result=False,
    )


def _digests(value: Any) -> Iterator[str]:
    if isinstance(value, (ArtifactRef, StageOutput)):
        yield value.digest
    for item in value.refs.values() if isinstance(value, StageOutput) else contained(value):
        yield from _digests(item)


def _of_this_flow() -> dict[str, State[Any]]:
    context = FlowRunContext.get()
    run_id = str(context.flow_run.id) if context and context.flow_run else ""
    states = _producers.setdefault(run_id, {})
    _producers.move_to_end(run_id)
    while len(_producers) > _MAX_FLOWS:
        _producers.popitem(last=False)
    return states


def _upstream(call: Call) -> list[State[Any]]:
    """The states of the tasks that gave this call's inputs, each once."""
    states = _of_this_flow()
    unique = {id(states[digest]): states[digest] for digest in _digests(call.arguments) if digest in states}
    return list(unique.values())


def _note(state: State[Any], output: StageOutput) -> StageOutput:
    states = _of_this_flow()
    for digest in _digests(output):
        states.setdefault(digest, state)
    return output


def perform(stage: Stage[Any, Any], call: Call) -> StageOutput:
    """Run one call here and now.

    Raises:
        Exception: whatever the stage raises, unchanged.
    """
    state: Any = _task(stage.unlabelled)(call, return_state=True, wait_for=_upstream(call))
    output: StageOutput = state.result()
    return _note(state, output)


def perform_all(stage: Stage[Any, Any], calls: list[Call]) -> list[StageOutput]:
    """Hand all calls to the flow's task runner and wait for every one of them.

    Raises:
        Exception: the first error in the order of the calls, unchanged, after the others finished.
    """
    task = _task(stage.unlabelled)
    futures = [task.submit(call, return_state=False, wait_for=_upstream(call)) for call in calls]
    wait(list(futures))
    outputs = []
    for future in futures:
        output: StageOutput = future.result()
        outputs.append(_note(future.state, output))
    return outputs


def show_progress(artifact: UUID | None, percent: float, name: str) -> UUID:
    """Make a progress artifact of the running task, or update it; its id."""
    if artifact is None:
        created: Any = artifacts.create_progress_artifact(progress=percent, description=name)
        return UUID(str(created))
    artifacts.update_progress_artifact(artifact_id=artifact, progress=percent)
    return artifact


def create_artifact(maker: str, **content: Any) -> None:
    """Make an artifact of the running flow or task by one of Prefect's functions."""
    getattr(artifacts, maker)(**content)
