"""Says in plain words what is wrong with a profile: the field, what came, what is allowed, the nearest valid name.

Works from the model's JSON schema, so it knows every bound that the model knows and needs no list of its own.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

NUMBERS = {"integer": "a whole number", "number": "a number"}


class Place(NamedTuple):
    """A spot in the profile: how a user writes it, and the schema of what belongs there."""

    name: str
    schema: dict[str, Any]
    parent: dict[str, Any]


def explain(error: ValidationError, model: type[BaseModel], subject: str) -> str:
    """Every problem of a validation error, one a line."""
    schema = model.model_json_schema()
    lines = [_line(problem, schema) for problem in error.errors(include_url=False)]
    if len(lines) == 1 and "\n" not in lines[0]:
        return f"{subject}: {lines[0]}"
    return f"{subject} has {len(lines)} problems:" + "".join(f"\n  {line}" for line in lines)


def _line(problem: ErrorDetails, schema: dict[str, Any]) -> str:
    """One problem in words."""
    place = _locate(problem["loc"], schema)
    kind = problem["type"]
    if kind == "extra_forbidden":
        return _unknown(place, schema)
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        variants = list(place.schema["discriminator"]["mapping"])
        came = f"got {problem['ctx']['tag']!r}" if kind == "union_tag_invalid" else "nothing came"
        return f"{place.name}.kind: {came}; allowed: {', '.join(variants)}" + _nearest(problem, variants)
    if kind == "value_error":
        return f"{place.name}: {problem['ctx']['error']}" if place.name else str(problem["ctx"]["error"])
    meaning = f" ({place.schema['description']})" if "description" in place.schema else ""
    if kind == "missing":
        return f"{place.name}: needed, but nothing came; allowed: {_allowed(place.schema, schema)}{meaning}"
    near = _nearest(problem, place.schema.get("enum", []))
    return f"{place.name}: got {problem['input']!r}; allowed: {_allowed(place.schema, schema)}{near}{meaning}"


def _nearest(problem: ErrorDetails, names: Sequence[Any]) -> str:
    """`; did you mean X?` where something near what came is allowed."""
    came = problem.get("ctx", {}).get("tag", problem["input"])
    near = difflib.get_close_matches(str(came), [str(name) for name in names], 1, 0.5)
    return f"; did you mean {near[0]}?" if near else ""


def _unknown(place: Place, schema: dict[str, Any]) -> str:
    """An unknown key: where it does belong, if anywhere near, and what is allowed where it stands."""
    head = place.name.rpartition(".")[0]
    siblings = list(place.parent.get("properties", {}))
    where = f"in {head}" if head else "here"
    return f"{place.name}: no such setting{_meant(place, schema)} (allowed {where}: {', '.join(siblings)})"


def _meant(place: Place, schema: dict[str, Any]) -> str:
    """The nearest of its siblings; else the variant that has it; else a setting of that name elsewhere."""
    head, _, last = place.name.rpartition(".")
    near = difflib.get_close_matches(last, list(place.parent.get("properties", {})), 1, 0.6)
    if near:
        return f"; did you mean {head}.{near[0]}?" if head else f"; did you mean {near[0]}?"
    kinds = [name for name, variant in _variants(head, schema) if last in variant["properties"]]
    if kinds:
        return f"; it belongs to {head}.kind={' or '.join(kinds)}"
    leaves = list(_leaves(schema, schema, ""))
    hints = [path for path in leaves if path.rpartition(".")[2] == last]
    if not hints:
        names = difflib.get_close_matches(last, [path.rpartition(".")[2] for path in leaves], 1, 0.75)
        hints = [path for path in leaves if names and path.rpartition(".")[2] == names[0]]
    return f"; did you mean {' or '.join(dict.fromkeys(hints))}?" if hints else ""


def _variants(dotted: str, schema: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(kind, schema) of the union at a path; nothing if there is none."""
    node = schema
    for part in dotted.split(".") if dotted else []:
        node = _resolve(node.get("properties", {}).get(part.partition("[")[0], {}), schema)
    mapping = node.get("discriminator", {}).get("mapping", {})
    return [(kind, _resolve({"$ref": target}, schema)) for kind, target in mapping.items()]


def _leaves(node: dict[str, Any], schema: dict[str, Any], prefix: str) -> Iterator[str]:
    """Every setting's dotted path."""
    for variant in [node, *(_resolve(option, schema) for option in node.get("oneOf", []))]:
        for name, child in variant.get("properties", {}).items():
            path = f"{prefix}{name}"
            yield path
            yield from _leaves(_resolve(child, schema), schema, f"{path}.")


def _resolve(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Follow a `$ref`; what stands beside it (a field's own description) wins."""
    if "$ref" in node:
        target = schema["$defs"][node["$ref"].rpartition("/")[2]]
        return {**target, **{key: value for key, value in node.items() if key != "$ref"}}
    return node


def _locate(loc: Sequence[str | int], schema: dict[str, Any]) -> Place:
    """Walk the schema along an error's location; a union's tag is a step of pydantic's, not of the user's file."""
    name, node, parent = "", schema, schema
    for step in loc:
        mapping = node.get("discriminator", {}).get("mapping", {})
        if step in mapping and "properties" not in node:
            node = {**_resolve({"$ref": mapping[str(step)]}, schema)}
            continue
        parent = node
        if isinstance(step, int):
            name, node = f"{name}[{step}]", _resolve(node.get("items", {}), schema)
        else:
            name = f"{name}.{step}" if name else step
            node = _resolve(node.get("properties", {}).get(step, {}), schema)
    return Place(name, node, parent)


def _allowed(node: dict[str, Any], schema: dict[str, Any]) -> str:
    """What a schema allows, in words."""
    if "enum" in node:
        return ", ".join(map(str, node["enum"]))
    if "const" in node:
        return str(node["const"])
    if "oneOf" in node:
        return f"a mapping with kind: {', '.join(node['discriminator']['mapping'])}"
    if "properties" in node:
        return f"a mapping with {', '.join(node['properties'])}"
    kind = node.get("type")
    if kind in NUMBERS:
        return NUMBERS[kind] + _bounds(node)
    if kind == "array":
        least = " of at least one" if node.get("minItems") else ""
        return f"a list{least}, each {_allowed(_resolve(node['items'], schema), schema)}"
    if kind == "boolean":
        return "true or false"
    if "pattern" in node:
        return f"text like {node['pattern']}"
    return "text" + (", not empty" if node.get("minLength") else "")


def _bounds(node: dict[str, Any]) -> str:
    """The bounds of a number in words."""
    words = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    found = [f"{word} {node[key]:g}" for key, word in words.items() if key in node]
    return f", {' and '.join(found)}" if found else ""
