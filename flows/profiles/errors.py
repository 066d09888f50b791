"""What is wrong with a profile: the field, the value, what is allowed, the nearest valid name.

Pydantic finds the problems and words most of them; this adds what it does not know: how a user writes the field's name,
and where a misplaced setting belongs.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from flows.profiles.overrides import Models, field_of, models_of, variants_of


class Location(NamedTuple):
    """Where a problem is."""

    name: str  # as a user writes it
    field: FieldInfo
    section: FieldInfo  # what it is a field of
    siblings: list[str]  # the settings that are allowed beside it


def explain(error: ValidationError, model: type[BaseModel], subject: str) -> str:
    """Every problem of a validation error, one a line."""
    lines = [_line(problem, model) for problem in error.errors(include_url=False)]
    if len(lines) == 1 and "\n" not in lines[0]:
        return f"{subject}: {lines[0]}"
    return f"{subject} has {len(lines)} problems:" + "".join(f"\n  {line}" for line in lines)


def _line(problem: ErrorDetails, model: type[BaseModel]) -> str:
    """One problem in words."""
    location, kind, context = _locate(problem["loc"], model), problem["type"], problem.get("ctx", {})
    name, value = location.name, problem["input"]
    if kind == "extra_forbidden":
        return _unknown(location, model)
    if kind == "value_error":
        return f"{name}: {context['error']}" if name else str(context["error"])
    choices = re.findall("'([^']*)'", context.get("expected", ""))
    if kind.startswith("union_tag"):
        name, value = f"{name}.{location.field.discriminator}", context.get("tag")
        choices = sorted(variants_of(location.field))
    near = _nearest(str(value), choices, 0.5)
    words = (
        "missing" if kind in ("missing", "union_tag_not_found") else f"got {value!r}",
        _allowed(problem, location.field, choices),
        f"did you mean {near}?" if near else "",
    )
    meaning = f" ({location.field.description})" if location.field.description else ""
    return f"{name}: {'; '.join(filter(None, words))}{meaning}"


def _allowed(problem: ErrorDetails, field: FieldInfo, choices: Sequence[str]) -> str:
    """What is allowed there: choices, a mapping, or in pydantic's words; nothing where these only say "required"."""
    if choices:
        return f"allowed: {', '.join(choices)}"
    if tags := sorted(variants_of(field)):
        return f"allowed: a mapping with {field.discriminator}: {', '.join(tags)}"
    if models := models_of(field):
        return f"allowed: a mapping with {', '.join(models[0].model_fields)}"
    words, bounds = problem["msg"].replace("valid tuple", "list").replace("Tuple", "List"), " and ".join(_bounds(field))
    if bounds and problem["type"].startswith(("missing", "greater_than", "less_than")):
        return f"allowed: {bounds}"
    if problem["type"] == "missing":
        return ""
    if not words.startswith("Input"):
        return words[0].lower() + words[1:]
    if problem["type"].endswith(("_type", "_parsing")):  # pydantic names a bound only once the type is right
        words = " ".join(filter(None, (words.partition(",")[0], bounds)))
    return words.replace("Input should be", "allowed:")


def _bounds(field: FieldInfo) -> Iterator[str]:
    """A number's bounds in words, such as `at least 1`, `at most 256`."""
    for constraint in field.metadata:
        for name, words in {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}.items():
            if (bound := getattr(constraint, name, None)) is not None:
                yield f"{words} {bound:g}"


def _unknown(location: Location, model: type[BaseModel]) -> str:
    """An unknown setting: where it belongs, if there is anything like it, and what is allowed where it stands."""
    head = location.name.rpartition(".")[0]
    where = f"in {head}" if head else "here"
    return f"{location.name}: no such setting{_suggestion(location, model)} (allowed {where}: {', '.join(location.siblings)})"


def _suggestion(location: Location, model: type[BaseModel]) -> str:
    """The variant of its section that has such a setting; else the nearest beside it; else the nearest elsewhere."""
    head, _, last = location.name.rpartition(".")
    tags = [tag for tag, variant in variants_of(location.section).items() if last in variant.model_fields]
    if tags:
        return f"; it belongs to {head}.{location.section.discriminator}={' or '.join(tags)}"
    if near := _nearest(last, location.siblings, 0.6):
        return f"; did you mean {head}.{near}?" if head else f"; did you mean {near}?"
    paths = list(dict.fromkeys(_paths((model,))))
    near = _nearest(last, [path.rpartition(".")[2] for path in paths], 0.75)
    hints = [path for path in paths if path.rpartition(".")[2] == near]
    return f"; did you mean {' or '.join(hints)}?" if hints else ""


def _nearest(name: str, names: Sequence[str], cutoff: float) -> str | None:
    return next(iter(difflib.get_close_matches(name, names, 1, cutoff)), None)


def _paths(models: Models, prefix: str = "") -> Iterator[str]:
    """Every setting's dotted name."""
    for model in models:
        for name, field in model.model_fields.items():
            yield prefix + name
            yield from _paths(models_of(field), f"{prefix}{name}.")


def _locate(loc: Iterable[Any], model: type[BaseModel]) -> Location:
    """Follow an error's location; the tag of a union is a step of pydantic's, not of the user's file."""
    field = FieldInfo(annotation=model)
    name, section, models, siblings = "", field, models_of(field), list[str]()
    for step in loc:
        if len(models) > 1 and step in variants_of(field):
            models = (variants_of(field)[step],)
            continue
        if isinstance(step, int):
            name, field = f"{name}[{step}]", FieldInfo.from_annotation((*get_args(field.annotation), None)[0])
        else:
            name = f"{name}.{step}" if name else step
            section, siblings = field, [sibling for owner in models for sibling in owner.model_fields]
            field = field_of(models, step)
        models = models_of(field)
    return Location(name, field, section, siblings)
