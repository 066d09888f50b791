"""What makes two stage calls the same: stage, code, semantic configuration, inputs, shard.

Code counts as syntax: a comment, a docstring or a line break changes nothing; a formula does. The modules that count
are the stage's own and every module of `tasks` it imports, directly or through others, inside functions too; not the
caching around it. Machine matters (batch size, device) are config fields marked `semantic: False` and don't count.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from storage.artifacts import ArtifactRef, StageOutput, canonical_json
from storage.records import Identity
from tasks.stage.results import named_fields

CHECKOUT = Path(__file__).resolve().parents[2]
# Around the stages, not in them: what they compute does not depend on the machinery, nor on how settings are declared.
_NOT_IN_KEYS = ("tasks.stage.", "tasks.configs.")

# Modules that put as much into a forward as `runtime.batch_size` and `runtime.token_budget` allow.
_BATCHED = frozenset(
    {"tasks.models.engine", "tasks.models.answer_values", "tasks.value.learners", "tasks.value.train_value"}
)


def canonical(value: Any) -> Any:
    """A value as plain JSON data that is the same in every process.

    References become digests, fields marked `json_schema_extra={"semantic": False}` drop out, sets are sorted.

    Raises:
        TypeError: a value of a kind that has no stable identity.
    """
    if isinstance(value, ArtifactRef):
        return {"artifact": f"{value.kind}:{value.digest}"}
    if isinstance(value, StageOutput):
        return {"output": value.digest}
    if isinstance(value, BaseModel) or _is_record(value):
        return {name: canonical(item) for name, item in _semantic_fields(value).items()}
    if isinstance(value, Enum):
        return canonical(value.value)
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, (list, tuple)):
        return [canonical(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((canonical(item) for item in value), key=canonical_json)
    if isinstance(value, Mapping):
        return {_key(key): canonical(item) for key, item in value.items()}
    raise TypeError(
        f"a {type(value).__name__} can't be part of a cache key: pass plain data, a pydantic model or an ArtifactRef"
    )


def _key(key: Any) -> str:
    plain = canonical(key)
    return plain if isinstance(plain, str) else canonical_json(plain)


def _semantic_fields(value: Any) -> dict[str, Any]:
    """The fields of a model or dataclass that count."""
    if not isinstance(value, BaseModel):
        return named_fields(value)
    fields = {}
    for name, field in type(value).model_fields.items():
        extra = field.json_schema_extra
        if not (isinstance(extra, Mapping) and extra.get("semantic") is False):
            fields[name] = getattr(value, name)
    return fields


def holds_artifacts(value: Any) -> bool:
    """Whether an argument is an input (references, outputs, or something that holds them) and not configuration."""
    if isinstance(value, (ArtifactRef, StageOutput)):
        return True
    return any(map(holds_artifacts, contained(value)))


def contained(value: Any) -> Iterable[Any]:
    """What a list, a mapping or a dataclass holds; nothing for any other value."""
    if isinstance(value, Mapping):
        return value.values()
    if isinstance(value, (list, tuple)):
        return value
    return named_fields(value).values() if _is_record(value) else ()


def _is_record(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def build_identity(stage: str, code: Mapping[str, str], arguments: Mapping[str, Any], shard: Any) -> Identity:
    """Everything the result depends on, readable, so that two of them can be compared in words."""
    config: dict[str, Any] = {}
    inputs: dict[str, Any] = {}
    for name, value in arguments.items():
        if not holds_artifacts(value):
            config[name] = canonical(value)
        elif _is_record(value):
            # A dataclass of both, as what guides a search: a changed number is reported as a number.
            for part, item in named_fields(value).items():
                (inputs if holds_artifacts(item) else config)[f"{name}.{part}"] = canonical(item)
        else:
            inputs[name] = canonical(value)
    return {
        "stage": stage,
        "code": dict(code),
        "config": config,
        "inputs": inputs,
        "shard": None if shard is None else canonical(shard),
    }


def batch_settings(code: Mapping[str, str], arguments: Mapping[str, Any], runtime: Any) -> dict[str, Any]:
    """The runtime's settings that change what a stage gives: the batch's shape, for 16-bit models that run in such batches.

    Sums in 16 bits round differently in batches of another shape, and texts follow. In float32 it isn't in the key.
    """
    if _BATCHED.isdisjoint(code) or not any(map(_in_16_bits, arguments.values())):
        return {}
    return {f"runtime.{name}": getattr(runtime, name) for name in ("batch_size", "token_budget")}


def _in_16_bits(value: Any) -> bool:
    """Whether an argument is or holds a model that is loaded with another dtype than float32."""
    if _is_record(value) and getattr(value, "dtype", "float32") != "float32":
        return True
    return any(map(_in_16_bits, contained(value)))


def key_of(identity: Identity) -> str:
    """The cache key: the stage's name and a digest of the identity."""
    return f"{identity['stage']}-{hashlib.sha256(canonical_json(identity).encode()).hexdigest()[:32]}"


def code_digest(code: Mapping[str, str]) -> str:
    """One digest for all modules."""
    return hashlib.sha256(canonical_json(dict(code)).encode()).hexdigest()


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:]
    return tree


@cache
def _parsed(path: Path) -> tuple[str, ast.Module]:
    """(digest, tree) of a source file, normalised; read once a process, as its import is."""
    tree = _without_docstrings(ast.parse(path.read_text()))
    # Text and not `ast.dump`, whose form changes between Python versions.
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()[:32], tree


def _find(module: str, root: Path) -> Path | None:
    """The source file of a module of the checkout; None if it is none."""
    stem = root.joinpath(*module.split("."))
    for path in (stem.with_suffix(".py"), stem / "__init__.py"):
        if path.is_file():
            return path
    return None


def _imported(module: str, path: Path, tree: ast.Module) -> Iterator[str]:
    """Names a module may import: `from a import b` gives a and a.b, whichever of them are modules."""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            yield source
            for alias in node.names:
                yield f"{source}.{alias.name}"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("tasks."):
            yield node.value.partition(":")[0]  # a module loaded by its name


@cache
def code_of(module: str, source: Path, root: Path = CHECKOUT) -> Mapping[str, str]:
    """Digest of each module whose code a stage uses.

    Args:
        module: the stage's own.
        source: its file.
        root: the folder that holds the package `tasks`.
    """
    digests: dict[str, str] = {}
    waiting = [(module, source)]
    while waiting:
        name, path = waiting.pop()
        if name in digests:
            continue
        digest, tree = _parsed(path)
        if tree.body or name == module:  # a package's empty __init__ doesn't matter
            digests[name] = digest
        for imported in _imported(name, path, tree):
            file = (
                _find(imported, root)
                if imported.startswith("tasks.") and not imported.startswith(_NOT_IN_KEYS)
                else None
            )
            if file is not None and imported not in digests:
                waiting.append((imported, file))
    return dict(sorted(digests.items()))
