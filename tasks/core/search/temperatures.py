"""Temperatures of a step's candidates."""

from __future__ import annotations

from collections.abc import Sequence


def spread_temperatures(candidates: int, temperatures: Sequence[float]) -> tuple[float, ...]:
    """One temperature a candidate: greedy (0) once, the others dealt out evenly, first to last.

    VisVM samples greedy and T .1 .3 .5 .7 .9; with fewer candidates than temperatures these are picked evenly over the range.
    """
    others = candidates - 1
    if others <= 0:
        return (0.0,)
    if others < len(temperatures):
        last = len(temperatures) - 1
        return (0.0, *(temperatures[round((i + 1) * last / others)] for i in range(others)))
    return (0.0, *(temperatures[i % len(temperatures)] for i in range(others)))
