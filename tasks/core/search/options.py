"""A strategy's own options with their defaults; an unknown name is an error."""

from __future__ import annotations

from typing import Any, TypeAlias

from tasks.core.search.contract import Settings

Default: TypeAlias = float | tuple[str, ...] | None


def own_options(settings: Settings, **defaults: Default) -> dict[str, Any]:
    """The options of a strategy that knows `defaults`, each checked against the type of its default.

    For an int default (2) the option must be a whole number, at least 1 unless the default is 0; for several words the option
    is one of them, by default the first; else (0.6, None) any number.

    Raises:
        ValueError: for an unknown option, or a value of another type.
    """
    read: dict[str, Any] = {
        name: default[0] if isinstance(default, tuple) else default for name, default in defaults.items()
    }
    for name, given in settings.options.items():
        if name not in defaults:
            raise ValueError(f"unknown option {name} for this strategy: want {_listed(defaults)}")
        read[name] = _checked(name, given, defaults[name])
    return read


def _checked(name: str, given: Any, default: Default) -> float | str:
    if isinstance(default, tuple):
        if given not in default:
            raise ValueError(f"option {name} is {given!r}: want {' or '.join(default)}")
        return str(given)
    if isinstance(default, int):
        least = min(default, 1)
        if type(given) is not int or given < least:
            raise ValueError(f"option {name} is {given!r}: want a whole number, at least {least}")
        return given
    if type(given) not in (int, float):
        raise ValueError(f"option {name} is {given!r}: want a number")
    return float(given)


def _listed(defaults: dict[str, Default]) -> str:
    return " or ".join(defaults) or "none, it has no options"
