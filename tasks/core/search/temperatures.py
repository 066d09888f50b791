"""Temperatures of a step's candidates."""

from __future__ import annotations

from collections.abc import Sequence


def spread_temperatures(candidates: int, temperatures: Sequence[float], *, greedy: bool = True) -> tuple[float, ...]:
    """One temperature a candidate: greedy (0) once unless it is left out, the others dealt out evenly, first to last.

    VisVM samples greedy and T .1 .3 .5 .7 .9; with fewer candidates than temperatures these are picked evenly over the range.
    """
    first = (0.0,) if greedy else ()
    others = candidates - len(first)
    if others < len(temperatures):
        last = len(temperatures) - 1
        return (*first, *(temperatures[round((i + 1) * last / others)] for i in range(others)))
    return (*first, *(temperatures[i % len(temperatures)] for i in range(others)))
