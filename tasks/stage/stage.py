"""`@stage`: a function from references to a result of references, computed once for each identity of code and inputs.

Called in a flow it is a Prefect task; called elsewhere it is cached and locked all the same; `stage.fn` is the bare
function. Prefect's own result cache is not used: its keys don't follow the code a stage calls, its hits don't look at
the files behind a result, and its file locks outlive a killed process.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar, cast

from storage import lake, records
from storage.artifacts import ArtifactRef, StageOutput
from storage.schema import Annotation, Answer
from tasks.stage import identity as ids
from tasks.stage.calls import Call, carry_out
from tasks.stage.plan import Pending, Plan, current_plan, pending_in
from tasks.stage.results import from_output
from tasks.stage.runtime import current_runtime
from tasks.stage.shards import WHOLE, Shard, split

P = ParamSpec("P")
R = TypeVar("R")
PlugInCode = Callable[..., Mapping[str, str]]


def _annotations_in(value: Any) -> bool:
    if isinstance(value, ArtifactRef):
        return value.kind in (Annotation.table, Answer.table)
    if isinstance(value, StageOutput):
        return any(map(_annotations_in, value.refs.values()))
    return any(map(_annotations_in, ids.contained(value)))


class Stage(Generic[P, R]):
    """A stage: call it in a flow, map it with `over_shards`, or call `fn` for the bare function."""

    def __init__(
        self,
        fn: Callable[P, R],
        *,
        sharded_by: str | None = None,
        reads_annotations: bool = False,
        plug_in_code: PlugInCode | None = None,
        retries: int = 0,
        tags: tuple[str, ...] = (),
    ) -> None:
        """See `stage`."""
        functools.update_wrapper(self, fn)
        self.fn = fn
        self.name = fn.__name__
        self.label = ""
        self.unlabelled: Stage[P, R] = self
        self.sharded_by = sharded_by
        self.reads_annotations = reads_annotations
        self.plug_in_code = plug_in_code
        self.retries = retries
        self.tags = tags
        self.signature = inspect.signature(fn)
        for needed in {"shard", sharded_by} - {None} if sharded_by else set():
            if needed not in self.signature.parameters:
                raise TypeError(f"stage {self.name}: sharded_by={sharded_by!r} needs a parameter {needed!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process as a name, not as code."""
        return _find_stage, (self.fn.__module__, self.fn.__qualname__)

    def with_label(self, label: str) -> Stage[P, R]:
        """The same stage; its calls are recorded and shown with this label, which is no part of the key."""
        labelled: Stage[P, R] = object.__new__(type(self))  # `copy` would give the stage itself, see `__reduce__`
        labelled.__dict__ |= self.__dict__ | {"label": label}
        return labelled

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The stage's result: cached or computed. In `planning()` it may be `Pending`.

        Raises:
            AnnotationsForbidden: annotations passed to a stage that may not read them.
            Exception: whatever the stage raises, unchanged.
        """
        arguments = self._bind(args, kwargs)
        shard = arguments.get("shard", WHOLE)
        plan = current_plan()
        if plan is not None:
            return self._planned(plan, arguments, [shard])
        return self._result(self._perform(self._call(arguments, shard)))

    def over_shards(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the stage on the runtime's number of shards and merge their tables: what follows doesn't depend on it.

        Every shard is cached by itself. Facts must agree among shards; counters are summed. Never more shards than
        rows. If shards fail, the others finish (and are cached) before the first error is raised.

        Raises:
            TypeError: the stage was not declared with `sharded_by`.
            AnnotationsForbidden: annotations passed to a stage that may not read them.
            Exception: whatever the stage raises, unchanged.
        """
        if self.sharded_by is None:
            raise TypeError(f"stage {self.name} can't be sharded: declare @stage(sharded_by=...)")
        arguments = self._bind(args, kwargs)
        whole = arguments[self.sharded_by]
        shards = split(current_runtime().shards, whole.rows if isinstance(whole, ArtifactRef) else None)
        plan = current_plan()
        if plan is not None:
            return self._planned(plan, arguments, shards)
        calls = [self._call({**arguments, "shard": shard}, shard) for shard in shards]
        if len(calls) == 1:
            return self._result(self._perform(calls[0]))
        if not _in_flow():
            outputs = [self._perform(call) for call in calls]
        else:
            from tasks.stage.prefect import perform_all

            outputs = perform_all(self, calls)
        return self._result(self._gathered(outputs))

    def _gathered(self, outputs: list[StageOutput]) -> StageOutput:
        from tasks.stage.gather import gather  # a stage itself

        return gather.with_label(self._title(None))(outputs)

    @functools.cached_property
    def _result_type(self) -> type[R]:
        return cast(type[R], eval(self.fn.__annotations__["return"], self.fn.__globals__))

    def _result(self, output: StageOutput) -> R:
        return from_output(self._result_type, output)

    def _bind(self, args: Any, kwargs: Any) -> dict[str, Any]:
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        arguments = dict(bound.arguments)
        for name, value in arguments.items():
            if not self.reads_annotations and _annotations_in(value):
                raise lake.AnnotationsForbidden(
                    f"stage {self.name} got annotations as {name}, but only stages declared "
                    "@stage(reads_annotations=True) may; pass the one table it needs: drawn.samples, not drawn"
                )
        return arguments

    def _title(self, shard: Shard | None) -> str:
        label = f" {self.label}" if self.label else ""
        return f"{self.name}{label}" + (f" {shard.index + 1}/{shard.of}" if shard and shard.of > 1 else "")

    def _call(self, arguments: dict[str, Any], shard: Shard) -> Call:
        in_key = {name: value for name, value in arguments.items() if name != "shard"}  # the shard is, by itself
        code = dict(ids.code_of(self.fn.__module__, Path(inspect.getfile(self.fn)).resolve()))
        if self.plug_in_code is not None:
            code |= self.plug_in_code(**in_key)
        identity = ids.build_identity(self.name, code, in_key, arguments.get("shard"))
        identity["config"] |= ids.batch_settings(code, arguments, current_runtime())
        index = shard.index if shard.of > 1 else None
        return Call(self, arguments, identity, label=self.label, index=index, title=self._title(shard))

    def _perform(self, call: Call) -> StageOutput:
        if not _in_flow():
            return carry_out(call).output
        from tasks.stage.prefect import perform

        return perform(self, call)

    def _planned(self, plan: Plan, arguments: dict[str, Any], shards: list[Shard]) -> R:
        indices = tuple(shard.index for shard in shards) if shards[0].of > 1 else None
        origin = pending_in(list(arguments.values()))
        if origin is not None:
            plan.add(self.name, self.label, indices, "waits", f"for {origin}")
            return cast(R, Pending(self.name))
        outputs, missing, reasons = [], [], []
        for shard in shards:
            call = self._call({**arguments, "shard": shard} if indices else arguments, shard)
            record, problem = records.load(self.name, call.key)
            if record is None:
                missing.append(shard.index)
                reasons.append(problem or call.why())
            else:
                outputs.append(record.output)
        if len(missing) < len(shards):
            cached = tuple(index for index in indices or () if index not in missing)
            plan.add(self.name, self.label, cached or None, "cached")
        if missing:
            indices = tuple(missing) if indices else None
            plan.add(self.name, self.label, indices, "run", "; ".join(dict.fromkeys(reasons)))
            return cast(R, Pending(self.name))
        gathered = outputs[0] if len(outputs) == 1 else self._gathered(outputs)
        return cast(R, gathered) if isinstance(gathered, Pending) else self._result(gathered)


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
    plug_in_code: PlugInCode | None = None,
    retries: int = 0,
    tags: tuple[str, ...] = (),
) -> Callable[[Callable[P, R]], Stage[P, R]]:
    """Make a function a cached stage. Its key: name, code, arguments.

    Args:
        sharded_by: the parameter whose rows `over_shards` divides; the function takes `shard: Shard = WHOLE`.
        reads_annotations: it may read what is truly in the images. Evaluation only.
        plug_in_code: of the stage's arguments: name -> digest of installed code it will use, which its imports don't show.
        retries: how often Prefect tries again after an error (not after a StageInputError).
        tags: Prefect tags, for example for a concurrency limit.
    """

    def decorate(fn: Callable[P, R]) -> Stage[P, R]:
        return Stage(
            fn,
            sharded_by=sharded_by,
            reads_annotations=reads_annotations,
            plug_in_code=plug_in_code,
            retries=retries,
            tags=tags,
        )

    return decorate
