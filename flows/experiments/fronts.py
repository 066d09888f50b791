"""What a comparison of searches shows: Pareto fronts, the arms at equal work, and MRGD's precision-recall curve."""

from __future__ import annotations

from typing import NamedTuple

from tasks.analysis.findings import Findings, line_of


def front(findings: Findings, metric: str, work: str = "tokens") -> list[str]:
    """The Pareto front: arms to which none is equal with less work, or better with the same work."""
    sign = -1 if metric == "recall" else 1
    level: tuple[float, float] | None = None
    best, names = float("inf"), []
    for cost, error, name in sorted(
        (findings.value(name, work), sign * findings.value(name, metric), name) for name in findings.arms
    ):
        if error < best or (cost, error) == level:  # equal arms are both on the front
            best, level = error, (cost, error)
            names.append(name)
    return names


class Tradeoff(NamedTuple):
    """One point of MRGD's precision-recall curve."""

    weight: float  # w, of correctness
    precision: float  # share of the mentioned objects that are there: 1 - CHAIRi
    recall: float
    arm: str


def tradeoff(findings: Findings, width: float) -> list[Tradeoff]:
    """The precision-recall curve of the arms `mrgd:w=...` at a number of candidates, by w; empty if there are none."""
    points = []
    for key in findings.arms:
        name, _, rest = line_of(key).partition(":")
        settings = dict(part.partition("=")[::2] for part in rest.split(",") if part)
        own = findings.x[key] if "candidates" not in settings else float(settings["candidates"])
        if name == "mrgd" and "w" in settings and own == width:
            precision = 1 - findings.value(key, "chair_i")
            points.append(Tradeoff(float(settings["w"]), precision, findings.value(key, "recall"), key))
    return sorted(points)


def at_equal_work(findings: Findings) -> list[str]:
    """The widest arm of each line within the budget; if none is, its narrowest."""
    budget, chosen = findings.value("greedy", "budget"), []
    for line in findings.lines():
        points = findings.line(line) or [line]
        within = [point for point in points if findings.value(point, "tokens") <= budget]
        chosen.append(within[-1] if within else points[0])
    return chosen


def note(findings: Findings, arm: str) -> str:
    """Beside an arm at equal work: the Pareto fronts over tokens that it is on, and whether it is over the budget."""
    fronts = [
        title for metric, title in (("chair_i", "CHAIRi"), ("recall", "Recall")) if arm in front(findings, metric)
    ]
    over = ["over the budget"] if findings.value(arm, "tokens") > findings.value("greedy", "budget") else []
    return ", ".join(fronts + over)
