"""Pieces of an experiment's paragraph, which has three sentences at most: what needs more words stands in the table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from tasks.core.analysis.findings import Findings, listed
from tasks.core.analysis.measures import measure_of


def figure(findings: Findings, arm: str, metric: str) -> str:
    """`31.7 %`: the figure without its interval, which stands in the table."""
    cell = findings.cell(arm, metric)
    return "unknown" if cell is None or math.isnan(cell.value) else f"{cell.text}{measure_of(metric).unit}"


def each(findings: Findings, arms: Iterable[str], metric: str) -> str:
    """`visvm 31.7 %, vimar 29.0 % and greedy 40.1 %`."""
    return listed([f"{arm} {figure(findings, arm, metric)}" for arm in arms])


def verdicts(findings: Findings, arms: Sequence[str], other: str, metric: str = "chair_i") -> str:
    """`surely better a and b; surely worse c; not surely different d`: all arms, sorted by what is known of each."""
    by_side: dict[str, list[str]] = {"better": [], "worse": [], "": []}
    for arm in arms:
        by_side[findings.surely(arm, other, metric)].append(arm)
    words = {"better": "surely better", "worse": "surely worse", "": "not surely different"}
    return "; ".join(f"{words[side]}: {listed(names)}" for side, names in by_side.items() if names)


def points(findings: Findings, arms: Iterable[str]) -> str:
    """`0.5 and 0.9`: the swept numbers of arms; `none` where there are none."""
    return listed([f"{findings.x[arm]:g}" for arm in arms]) or "none"
