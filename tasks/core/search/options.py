"""A strategy's own options: read over their defaults, with an error for a name that it doesn't know."""

from __future__ import annotations

from typing import Any

from tasks.core.search.contract import Settings


def own_options(settings: Settings, **defaults: float | None) -> dict[str, Any]:
    """The options of a strategy that knows `defaults`, each of its default's kind.

    A whole default (2) wants a whole number, at least 1 unless the default is 0; another (0.6, None) any number.

    Raises:
        ValueError: for an unknown option, and for one of another kind.
    """
    read: dict[str, Any] = dict(defaults)
    for name, given in settings.options.items():
        if name not in defaults:
            raise ValueError(f"unknown option {name} for this strategy: want {_listed(defaults)}")
        read[name] = _checked(name, given, defaults[name])
    return read


def _checked(name: str, given: Any, default: float | None) -> float:
    if isinstance(default, int):
        least = min(default, 1)
        if type(given) is not int or given < least:
            raise ValueError(f"option {name} is {given!r}: want a whole number, at least {least}")
        return given
    if type(given) not in (int, float):
        raise ValueError(f"option {name} is {given!r}: want a number")
    return float(given)


def _listed(defaults: dict[str, float | None]) -> str:
    return " or ".join(defaults) or "none, it has no options"
