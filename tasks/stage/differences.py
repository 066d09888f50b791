"""Why a stage has to run: the words for what differs from the nearest cached call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from storage.records import Identity, Record, records


def _flat(value: Any, path: str) -> dict[str, Any]:
    if isinstance(value, Mapping) and value:
        flat: dict[str, Any] = {}
        for name, item in value.items():
            flat.update(_flat(item, f"{path}.{name}"))
        return flat
    return {path: value}


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _config_differences(section: str, then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    for config, flat in ((then, before), (now, after)):
        for argument, value in config.items():
            # `search.candidates`, not `search.config.candidates`: the name a profile gives it.
            flat.update(_flat(value, section if argument == "config" else f"{section}.{argument}"))
    words = []
    for name in sorted(before.keys() | after.keys()):
        if name not in before:
            words.append(f"{name}: new, {_shown(after[name])}")
        elif name not in after:
            words.append(f"{name}: gone, was {_shown(before[name])}")
        elif before[name] != after[name]:
            words.append(f"{name}: {_shown(before[name])} -> {_shown(after[name])}")
    return words


def _changed(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [name for name in sorted(then.keys() | now.keys()) if then.get(name) != now.get(name)]


def differences(then: Identity, now: Identity, section: str = "") -> list[str]:
    """What differs between two identities of a stage, in words, the config first.

    `section`: of the profile, where the stage's config stands; its name if left out.
    """
    words = _config_differences(section or now["stage"], then["config"], now["config"])
    words += [f"input {name} changed" for name in _changed(then["inputs"], now["inputs"])]
    words += [f"code: {name} changed" for name in _changed(then["code"], now["code"])]
    if then["shard"] != now["shard"]:
        counts = [1 if shard is None else shard["of"] for shard in (then["shard"], now["shard"])]
        words.append(f"shards: {counts[0]} -> {counts[1]}" if counts[0] != counts[1] else "this shard never ran")
    return words


def why(identity: Identity, label: str, section: str = "") -> str:
    """Why no record fits: what differs from the nearest one; `never ran` if the stage has none."""

    def distance(record: Record) -> tuple[int, bool, bool]:
        shard = record.identity.get("shard")
        return len(differences(record.identity, identity)), shard != identity["shard"], record.label != label

    cached = records(identity["stage"])  # newest first, and `min` keeps the first of equals
    if not cached:
        return "never ran"
    nearest = min(cached, key=distance)
    return "; ".join(differences(nearest.identity, identity, section)) or "its record is gone"
