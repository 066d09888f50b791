"""How settings are laid over a profile: those of a profile that extends it, and `NAME=VALUE` overrides.

Mappings merge key by key; any other value replaces what was there, and so does an empty mapping. A section with several
variants (`data.train.kind`, `finetune.method`) follows one rule when its variant is switched: the settings that all
variants inherit from a common class are kept, the others are dropped. So another method keeps `lr`, `train` and the
other settings that all methods share; kinds have no common class, so another kind starts afresh. Likewise a setting that
belongs to another one's value (`search.options` to `search.strategy`) is dropped where that value changes. Both happen
before anything else is set, whatever the order of the overrides.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

log = logging.getLogger(__name__)

Tree = dict[str, Any]
Models = tuple[type[BaseModel], ...]

RENAMED: dict[str, str] = {}  # a setting's former name -> its name; both dotted
MISSING = object()


def models_of(field: FieldInfo) -> Models:
    """The models whose settings may stand in a field: one, a union's variants, or none."""
    parts = (field.annotation, *get_args(field.annotation))
    return tuple(part for part in parts if isinstance(part, type) and issubclass(part, BaseModel))


def variants_of(field: FieldInfo) -> dict[str, type[BaseModel]]:
    """The variants of a discriminated union by their tags; empty for any other field."""
    key = field.discriminator
    if not isinstance(key, str):
        return {}
    return {tag: model for model in models_of(field) for tag in get_args(model.model_fields[key].annotation)}


def field_of(models: Models, name: str) -> FieldInfo:
    """The field of that name in the first model that has it; one without any type if none has."""
    return next((model.model_fields[name] for model in models if name in model.model_fields), FieldInfo())


def nested(dotted: str, value: Any) -> Tree:
    """`a.b` and a value as {a: {b: value}}."""
    for part in reversed(dotted.split(".")):
        value = {part: value}
    return dict(value)


def lay_over(tree: Tree, layers: Sequence[Tree], model: type[BaseModel]) -> list[str]:
    """Lay settings over a model's, in place and in this order.

    Returns:
        A line for every setting that was dropped because it belongs to a value that changed.
    """
    dropped: list[str] = []
    for layer in layers:
        _switch_variants(tree, layer, (model,))
        dropped += _drop_dependent(tree, layer, (model,), "")
    for layer in layers:
        _merge(tree, layer, (model,))
    return dropped


def _drop_dependent(tree: Tree, layer: Tree, models: Models, above: str) -> list[str]:
    """Drop the settings that a model's `belongs_to` names where the layer changes what they belong to; a line for each."""
    lines: list[str] = []
    for name, owner in ((name, owner) for model in models for name, owner in getattr(model, "belongs_to", {}).items()):
        before = tree.get(owner, field_of(models, owner).default)
        if owner in layer and layer[owner] != before and tree.get(name):
            gone = ", ".join(f"{key}={value}" for key, value in tree.pop(name).items())
            lines.append(f"{above}{name} ({gone}) are dropped: of {above}{owner}={before}, which is now {layer[owner]}")
            tree[owner] = layer[owner]  # a later layer may set it again
    for name, change in layer.items():
        if isinstance(change, dict) and isinstance(tree.get(name), dict):
            lines += _drop_dependent(tree[name], change, models_of(field_of(models, name)), f"{above}{name}.")
    return lines


def with_present_names(tree: Tree, renamed: Mapping[str, str] = RENAMED) -> Tree:
    """The tree with renamed settings under their present names; warns of each former name."""
    for former, present in renamed.items():
        value = _take(tree, former.split("."))
        if value is not MISSING:
            log.warning("%s is now %s; the former name will be refused one day", former, present)
            moved = nested(present, value)
            _merge(moved, tree, ())
            tree = moved
    return tree


def _take(tree: Any, path: Sequence[str]) -> Any:
    """Remove a setting, and sections that are empty without it, and return its value; MISSING if it is not set."""
    name, *rest = path
    if not isinstance(tree, dict) or name not in tree:
        return MISSING
    if not rest:
        return tree.pop(name)
    value = _take(tree[name], rest)
    if value is not MISSING and not tree[name]:
        del tree[name]
    return value


def _switch_variants(tree: Tree, layer: Tree, models: Models) -> None:
    for name, change in layer.items():
        if not isinstance(change, dict) or not change:
            continue
        field = field_of(models, str(name))
        section, key = _section(tree, str(name), field), field.discriminator
        if isinstance(key, str) and key in change:
            if change[key] != section.get(key, _default(field).get(key)):
                for dropped in section.keys() - _shared(models_of(field)):
                    del section[dropped]
            section[key] = change[key]
        _switch_variants(section, change, models_of(field))


def _merge(tree: Tree, layer: Tree, models: Models) -> None:
    for name, change in layer.items():
        if isinstance(change, dict) and change:
            field = field_of(models, str(name))
            _merge(_section(tree, str(name), field), change, models_of(field))
        else:
            tree[str(name)] = change


def _section(tree: Tree, name: str, field: FieldInfo) -> Tree:
    """The mapping under a name. A union that the tree leaves out starts as its default: a setting names no variant."""
    if not isinstance(tree.get(name), dict):
        tree[name] = _default(field) if field.discriminator else {}
    section: Tree = tree[name]
    return section


def _default(field: FieldInfo) -> Tree:
    """A section's default settings; empty where it has none."""
    default = field.get_default(call_default_factory=True)
    return default.model_dump() if isinstance(default, BaseModel) else {}


def _shared(variants: Models) -> set[str]:
    """The settings that all variants inherit from a class they have in common."""
    common = set.intersection(*(set(variant.__mro__) for variant in variants))
    return {name for model in common if issubclass(model, BaseModel) for name in model.model_fields}
