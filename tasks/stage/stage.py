"""`@stage`: a function from references to references that is computed once for each identity of code and inputs.

Called in a flow it is a Prefect task; called elsewhere it is cached and locked all the same; `stage.fn` is the bare
function. Prefect's own result cache is not used: its keys don't follow the code a stage calls, its hits don't look at
the files behind a result, and its file locks outlive a killed process.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, ParamSpec, cast

from storage import lake, records
from storage.artifacts import ArtifactRef, StageOutput
from storage.schema import Annotation, Answer
from tasks.stage import identity as ids
from tasks.stage.calls import Call, carry_out, fault_point, in_round, resume_folder, run_recording
from tasks.stage.plan import Pending, Plan, PlanEntry, current_plan, pending_in, planning
from tasks.stage.quarantine import StageInputError, TooManyQuarantined, check_nothing_lost
from tasks.stage.shards import WHOLE, Shard, split

__all__ = [
    "WHOLE",
    "Pending",
    "Plan",
    "PlanEntry",
    "Shard",
    "Stage",
    "StageInputError",
    "StageOutput",
    "TooManyQuarantined",
    "check_nothing_lost",
    "fault_point",
    "in_round",
    "planning",
    "resume_folder",
    "run_recording",
    "stage",
]

P = ParamSpec("P")
_NOT_IN_THE_KEY = frozenset({"runtime", "label", "shard"})  # the shard is, by itself


def _annotations_in(value: Any) -> bool:
    if isinstance(value, ArtifactRef):
        return value.kind in (Annotation.table, Answer.table)
    if isinstance(value, StageOutput):
        return any(map(_annotations_in, value.refs.values()))
    if isinstance(value, dict):
        return any(map(_annotations_in, value.values()))
    return isinstance(value, (list, tuple)) and any(map(_annotations_in, value))


class Stage(Generic[P]):
    """A stage: call it in a flow, map it with `over_shards`, or call `fn` for the bare function."""

    def __init__(
        self,
        fn: Callable[P, StageOutput],
        *,
        sharded_by: str | None,
        reads_annotations: bool,
        retries: int,
        tags: tuple[str, ...],
    ) -> None:
        """See `stage`."""
        functools.update_wrapper(self, fn)
        self.fn = fn
        self.name = fn.__name__
        self.sharded_by = sharded_by
        self.reads_annotations = reads_annotations
        self.retries = retries
        self.tags = tags
        self.signature = inspect.signature(fn)
        for needed in {"shard", sharded_by} - {None} if sharded_by else set():
            if needed not in self.signature.parameters:
                raise TypeError(f"stage {self.name}: sharded_by={sharded_by!r} needs a parameter {needed!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process as a name, not as code."""
        return _find_stage, (self.fn.__module__, self.fn.__qualname__)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> StageOutput:
        """The stage's output: kept or computed. In `planning()` it may be `Pending`.

        Raises:
            AnnotationsForbidden: annotations passed to a stage that may not read them.
            Exception: whatever the stage raises, unchanged.
        """
        arguments = self._bind(args, kwargs)
        shard = arguments.get("shard", WHOLE)
        plan = current_plan()
        if plan is not None:
            return cast(StageOutput, self._planned(plan, arguments, [shard]))
        return self._perform(self._call(arguments, shard))

    def over_shards(self, n: int, /, *args: P.args, **kwargs: P.kwargs) -> StageOutput:
        """Run the stage on `n` shards and merge their tables, so that what follows doesn't depend on `n`.

        Every shard is cached by itself. Facts must agree among shards; counters are summed. Never more shards than
        rows. If shards fail, the others finish (and are kept) before the first error is raised.

        Raises:
            TypeError: the stage was not declared with `sharded_by`.
            AnnotationsForbidden: annotations passed to a stage that may not read them.
            Exception: whatever the stage raises, unchanged.
        """
        if self.sharded_by is None:
            raise TypeError(f"stage {self.name} can't be sharded: declare @stage(sharded_by=...)")
        arguments = self._bind(args, kwargs)
        shards = self._shards(n, arguments[self.sharded_by])
        plan = current_plan()
        if plan is not None:
            return cast(StageOutput, self._planned(plan, arguments, shards))
        calls = [self._call({**arguments, "shard": shard}, shard) for shard in shards]
        if len(calls) == 1:
            return self._perform(calls[0])
        if not _in_flow():
            outputs = [self._perform(call) for call in calls]
        else:
            from tasks.stage.prefect import perform_all

            outputs = perform_all(self, calls)
        return self._gathered(outputs, arguments)

    def _gathered(self, outputs: list[StageOutput], arguments: dict[str, Any]) -> StageOutput:
        from tasks.stage.gather import gather  # a stage itself

        return gather(outputs, label=self._title(arguments, None))

    def _shards(self, n: int, whole: Any) -> list[Shard]:
        ref = whole.refs.get(str(self.sharded_by)) if isinstance(whole, StageOutput) else whole
        return split(n, ref.rows if isinstance(ref, ArtifactRef) else None)

    def _bind(self, args: Any, kwargs: Any) -> dict[str, Any]:
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        arguments = dict(bound.arguments)
        for name, value in arguments.items():
            if not self.reads_annotations and _annotations_in(value):
                raise lake.AnnotationsForbidden(
                    f"stage {self.name} got annotations as {name}, but only stages declared "
                    "@stage(reads_annotations=True) may; pass the one output it needs: out['samples'], not out"
                )
        return arguments

    def _title(self, arguments: dict[str, Any], shard: Shard | None) -> str:
        label = f" {arguments['label']}" if arguments.get("label") else ""
        return f"{self.name}{label}" + (f" {shard.index + 1}/{shard.of}" if shard and shard.of > 1 else "")

    def _call(self, arguments: dict[str, Any], shard: Shard) -> Call:
        kept = {name: value for name, value in arguments.items() if name not in _NOT_IN_THE_KEY}
        code = ids.code_of(self.fn.__module__, Path(inspect.getfile(self.fn)).resolve())
        identity = ids.build_identity(self.name, code, kept, arguments.get("shard"))
        index = shard.index if shard.of > 1 else None
        label = str(arguments.get("label") or "")
        return Call(self, arguments, identity, label=label, index=index, title=self._title(arguments, shard))

    def _perform(self, call: Call) -> StageOutput:
        if not _in_flow():
            return carry_out(call).output
        from tasks.stage.prefect import perform

        return perform(self, call)

    def _planned(self, plan: Plan, arguments: dict[str, Any], shards: list[Shard]) -> StageOutput | Pending:
        label = str(arguments.get("label") or "")
        indices = tuple(shard.index for shard in shards) if shards[0].of > 1 else None
        origin = pending_in(list(arguments.values()))
        if origin is not None:
            plan.add(self.name, label, indices, "waits", f"for {origin}")
            return Pending(self.name)
        outputs, missing, reasons = [], [], []
        for shard in shards:
            call = self._call({**arguments, "shard": shard} if indices else arguments, shard)
            record, problem = records.recall(self.name, call.key)
            if record is None:
                missing.append(shard.index)
                reasons.append(problem or call.why())
            else:
                outputs.append(record.output)
        if len(missing) < len(shards):
            kept = tuple(index for index in indices or () if index not in missing)
            plan.add(self.name, label, kept or None, "cached")
        if missing:
            plan.add(self.name, label, tuple(missing) if indices else None, "run", "; ".join(dict.fromkeys(reasons)))
            return Pending(self.name)
        return outputs[0] if len(outputs) == 1 else self._gathered(outputs, arguments)


def _find_stage(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


def _in_flow() -> bool:
    """Whether a flow is running here and not one of its tasks; doesn't import Prefect to find out."""
    context: Any = sys.modules.get("prefect.context")
    if context is None:
        return False
    return context.FlowRunContext.get() is not None and context.TaskRunContext.get() is None


def stage(
    *,
    sharded_by: str | None = None,
    reads_annotations: bool = False,
    retries: int = 0,
    tags: tuple[str, ...] = (),
) -> Callable[[Callable[P, StageOutput]], Stage[P]]:
    """Make a function a cached stage. Its key: name, code, arguments; not `runtime`, not `label`.

    Args:
        sharded_by: the parameter whose rows `over_shards` divides; the function takes `shard: Shard = WHOLE`.
        reads_annotations: it may read what is truly in the images. Evaluation only.
        retries: how often Prefect tries again after an error (not after a StageInputError).
        tags: Prefect tags, for example for a concurrency limit.
    """

    def decorate(fn: Callable[P, StageOutput]) -> Stage[P]:
        return Stage(fn, sharded_by=sharded_by, reads_annotations=reads_annotations, retries=retries, tags=tags)

    return decorate
