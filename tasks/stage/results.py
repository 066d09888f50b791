"""What a stage returns: a frozen result of its own, whose fields are tables, checkpoints and small facts.

The store keeps a result as plain references, facts and counters (`storage.artifacts.StageOutput`); here one becomes the other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar, cast, get_origin, get_type_hints

from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python

from storage.artifacts import ArtifactRef, StageOutput

R = TypeVar("R")


@dataclass(frozen=True)
class StageResult:
    """Base of every stage's result.

    A field's name is the artifact's or fact's name in the store. A table called as its kind is shown in the catalog's view of
    that name; under another name it is an intermediate one. A field may hold several artifacts, as a tuple or a dict by name.
    """

    counters: Mapping[str, float] = field(
        default_factory=dict, kw_only=True, compare=False
    )  # work; no part of identity


def named_fields(result: Any) -> dict[str, Any]:
    """The fields of a dataclass instance that count: all but a result's counters."""
    skip = "counters" if isinstance(result, StageResult) else None
    return {field.name: getattr(result, field.name) for field in dataclasses.fields(result) if field.name != skip}


def to_output(result: Any) -> StageOutput:
    """What the store keeps of a result.

    Raises:
        TypeError: it is no result.
    """
    if isinstance(result, StageOutput):
        return result
    if not isinstance(result, StageResult):
        raise TypeError(f"a {type(result).__name__}, not a StageResult")
    refs: dict[str, ArtifactRef] = {}
    facts: dict[str, Any] = {}
    for name, value in named_fields(result).items():
        parts = _parts(name, value)
        if parts is None:
            facts[name] = to_jsonable_python(value)
        else:
            refs |= parts
    return StageOutput(refs=refs, facts=facts, counters=dict(result.counters))


def _parts(name: str, value: Any) -> dict[str, ArtifactRef] | None:
    """Artifacts by the name they are stored under; None for a fact."""
    if isinstance(value, ArtifactRef):
        return {name: value}
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, tuple) else ()
    parts = {f"{name}.{key}": item for key, item in items}
    return parts if parts and all(isinstance(item, ArtifactRef) for item in parts.values()) else None


def from_output(result_type: type[R], output: StageOutput) -> R:
    """The result that was stored.

    Raises:
        KeyError: the output lacks an artifact or fact that a field needs.
    """
    if result_type is StageOutput:
        return cast(R, output)
    values: dict[str, Any] = {"counters": output.counters}
    for name, (hint, optional) in _declared(cast(Hashable, result_type)).items():
        parts = {key.removeprefix(f"{name}."): ref for key, ref in output.refs.items() if key.startswith(f"{name}.")}
        if name in output.refs:
            values[name] = output.refs[name]
        elif parts:
            values[name] = tuple(parts.values()) if get_origin(hint) is tuple else parts
        elif name in output.facts:
            values[name] = _adapter(cast(Hashable, result_type), name).validate_python(output.facts[name])
        elif not optional:
            raise KeyError(f"{result_type.__name__} needs {name}; kept are {sorted({*output.refs, *output.facts})}")
    return result_type(**values)


@cache
def _declared(result_type: Hashable) -> dict[str, tuple[Any, bool]]:
    """Field -> (its type, whether it has a default)."""
    hints = get_type_hints(result_type)
    fields = dataclasses.fields(cast(Any, result_type))
    missing = dataclasses.MISSING
    return {
        field.name: (hints[field.name], field.default is not missing or field.default_factory is not missing)
        for field in fields
        if field.name != "counters"
    }


@cache
def _adapter(result_type: Hashable, name: str) -> TypeAdapter[Any]:
    return TypeAdapter(_declared(result_type)[name][0])
