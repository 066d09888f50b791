"""Temperatures of a step's candidates."""

from __future__ import annotations

from collections.abc import Sequence


def spread_temperatures(candidates: int, temperatures: Sequence[float], *, greedy: bool = True) -> tuple[float, ...]:
    """One temperature for each candidate: greedy (0) once if `greedy`, then the others in turn, first to last.

    VisVM samples greedy and T .1 .3 .5 .7 .9; fewer candidates than temperatures are spread evenly over their range.
    """
    first = (0.0,) if greedy else ()
    others = candidates - len(first)
    if others < len(temperatures):
        last = len(temperatures) - 1
        return (*first, *(temperatures[round((i + 1) * last / others)] for i in range(others)))
    return (*first, *(temperatures[i % len(temperatures)] for i in range(others)))
