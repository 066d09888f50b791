"""The findings of an experiment: its figures by arm and metric, and the conclusions that they support.

Pure: rows of `findings` in, cells of a table and pieces of a paragraph out. A difference is called sure only where its interval
excludes zero and its p-value is below 5 % after Holm's correction over all differences of the experiment that are judged
(`Measure.judged`; see `certainty`). Arms that are points of one line are called LINE@X, as visvm@6; a difference from another
arm is a metric of its own, as `chair_i - greedy`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import NamedTuple

from storage.schema import Finding
from tasks.core.analysis.certainty import holm, of_one_seed, over_seeds, stderr_of_interval
from tasks.core.analysis.measures import measure_of

CONFIDENCE = 0.95  # of what is called sure


class Cell(NamedTuple):
    """A figure in the unit that is shown, with its interval; NaN where it has none."""

    value: float
    low: float
    high: float
    n: int
    digits: int

    @property
    def text(self) -> str:
        """The figure."""
        return _digits(self.value, self.digits)

    @property
    def interval(self) -> str:
        """The interval; empty where there is none."""
        if math.isnan(self.low) or math.isnan(self.high):
            return ""
        return f"{_digits(self.low, self.digits)} to {_digits(self.high, self.digits)}"


class Change(NamedTuple):
    """A paired difference between two arms, or a figure that is a difference itself."""

    cell: Cell
    side: int  # -1 or 1: surely lower or higher; 0: not sure
    leaning: int  # the same without a correction: its interval, or that of every seed, excludes zero
    judged: bool  # it is of the family that is corrected; else only its interval is shown

    def in_words(self, unit: str) -> str:
        """`surely lower by 3.1 points (2.0 to 4.2)`; perhaps, where only `leaning`; what is not judged is lower or higher."""
        cell, towards = self.cell, self.side or self.leaning
        if not towards:
            return f"no difference seen ({cell.text}{unit}{f', {cell.interval}' if cell.interval else ''})"
        turned = cell if towards > 0 else cell._replace(value=-cell.value, low=-cell.high, high=-cell.low)
        word = "surely " if self.side else "perhaps " if self.judged else ""
        return f"{word}{'higher' if towards > 0 else 'lower'} by {turned.text}{unit} ({turned.interval})"


class Findings:
    """The figures of one experiment, of one seed or several.

    With one seed intervals are those of the metrics (bootstrap over items); with several the seed is a random effect in them.
    """

    def __init__(self, rows: Iterable[Finding], arms: Sequence[str] = ()) -> None:
        """`arms` is their order; those it doesn't name follow."""
        self.rows = list(rows)
        self._by: dict[tuple[str, str], list[Finding]] = {}
        for row in self.rows:
            self._by.setdefault((row.arm, row.metric), []).append(row)
        self.arms = list(dict.fromkeys([*arms, *(row.arm for row in self.rows)]))
        self.seeds = sorted({row.seed for row in self.rows})
        self.x = {row.arm: row.x for row in self.rows}

    def has(self, arm: str, metric: str) -> bool:
        """Whether the figure was measured."""
        return (arm, metric) in self._by

    def value(self, arm: str, metric: str) -> float:
        """The figure as in the table, mean over seeds; NaN where there is none."""
        rows = self._by.get((arm, metric), [])
        return sum(row.value for row in rows) / len(rows) if rows else math.nan

    def cell(self, arm: str, metric: str) -> Cell | None:
        """The figure as it is shown."""
        rows = self._by.get((arm, metric))
        if not rows:
            return None
        measure = measure_of(metric)
        if len(self.seeds) > 1:
            _, _, low, high, *_ = over_seeds([row.value for row in rows], [_stderr(row) for row in rows])
            if measure.is_share and " - " not in metric:
                low, high = max(low, 0.0), min(high, 1.0)  # NaN stays
        else:
            low, high = _known(rows[0].ci_low), _known(rows[0].ci_high)
        value, low, high = (measure.scale * number for number in (self.value(arm, metric), low, high))
        return Cell(value, low, high, max(row.n for row in rows), measure.digits)

    def cells(self, arms: Iterable[str], metric: str) -> list[Cell]:
        """The figures of some arms; those that have none are left out."""
        return [cell for arm in arms if (cell := self.cell(arm, metric)) is not None]

    def change(self, arm: str, other: str, metric: str) -> Change | None:
        """The paired difference, `arm` minus `other`, whichever of the two ways it was measured."""
        for first, second, sign in ((arm, other, 1), (other, arm, -1)):
            name = f"{metric} - {second}"
            cell = self.cell(first, name)
            if cell is not None:
                low, high = (cell.low, cell.high) if sign > 0 else (-cell.high, -cell.low)
                cell = cell._replace(value=sign * cell.value, low=low, high=high)
                return Change(cell, sign * self._sure(first, name), sign * self._leans(first, name), _judged(name))
        return None

    def own_change(self, arm: str, metric: str) -> Change | None:
        """A figure that is a difference itself, as `general_change`."""
        cell = self.cell(arm, metric)
        if cell is None:
            return None
        return Change(cell, self._sure(arm, metric), self._leans(arm, metric), _judged(metric))

    @cached_property
    def family(self) -> dict[tuple[str, str], float]:
        """The p-value after Holm's correction of every difference that is judged, by (arm, metric).

        A difference that was measured both ways is one. One that lacks seeds of the experiment, or a spread, can't be sure.
        """
        p_values: dict[tuple[str, str], float] = {}
        for (arm, name), rows in self._by.items():
            metric, _, other = name.partition(" - ")
            if _judged(name) and (other, f"{metric} - {arm}") not in p_values:
                p = self._p(rows)
                if not math.isnan(p):
                    p_values[arm, name] = p
        return dict(zip(p_values, holm(list(p_values.values())), strict=True))

    def _p(self, rows: Sequence[Finding]) -> float:
        if len(self.seeds) == 1:
            return of_one_seed(rows[0].value, _stderr(rows[0]), rows[0].n)
        whole = len(rows) == len(self.seeds)
        return over_seeds([row.value for row in rows], [_stderr(row) for row in rows]).p if whole else math.nan

    def _sure(self, arm: str, name: str) -> int:
        metric, _, other = name.partition(" - ")
        p = self.family.get((arm, name), self.family.get((other, f"{metric} - {arm}"), math.nan))
        return self._interval_side(arm, name) if p < 1 - CONFIDENCE else 0

    def _leans(self, arm: str, name: str) -> int:
        sides = {_side(row.ci_low, row.ci_high) for row in self._by[arm, name]}
        every_seed = sides.pop() if len(sides) == 1 and len(self._by[arm, name]) == len(self.seeds) else 0
        return self._interval_side(arm, name) or every_seed

    def _interval_side(self, arm: str, name: str) -> int:
        cell = self.cell(arm, name)
        return 0 if cell is None else _side(cell.low, cell.high)

    def surely(self, arm: str, other: str, metric: str) -> str:
        """`better` or `worse` than the other arm where that is sure, else empty."""
        change = self.change(arm, other, metric)
        better = measure_of(metric).better
        if change is None or not change.side or not better:
            return ""
        return "better" if (change.side < 0) == (better == "lower") else "worse"

    def line(self, name: str) -> list[str]:
        """The arms of one line, by x."""
        arms = [arm for arm in self.arms if line_of(arm) == name and self.x.get(arm) is not None]
        return sorted(arms, key=lambda arm: self.x[arm] or 0.0)

    def lines(self) -> list[str]:
        """The lines in order; an arm without x is one of its own."""
        return list(dict.fromkeys(line_of(arm) if self.x.get(arm) is not None else arm for arm in self.arms))

    def best(self, metric: str, arms: Iterable[str] | None = None) -> str:
        """The arm with the best figure of those that have one; of equals the first. Empty where none has."""
        sign = -1 if measure_of(metric).better == "higher" else 1
        known = [arm for arm in (self.arms if arms is None else arms) if not math.isnan(self.value(arm, metric))]
        return min(known, key=lambda arm: sign * self.value(arm, metric), default="")

    def knee(self, line: str, metric: str) -> str:
        """The first arm of a line that is not surely worse than its last."""
        arms = self.line(line)
        return next(arm for arm in arms if arm == arms[-1] or self.surely(arm, arms[-1], metric) != "worse")

    def items(self) -> int:
        """How many items (images) the figures stand on, at most."""
        return max((row.n for row in self.rows), default=0)

    # Supported conclusions.

    def text(self, arm: str, metric: str) -> str:
        """`31.7 % (29.9 to 33.1)`."""
        cell = self.cell(arm, metric)
        if cell is None or math.isnan(cell.value):
            return "unknown"
        interval = f" ({cell.interval})" if cell.interval else ""
        return f"{cell.text}{measure_of(metric).unit}{interval}"

    def compared(self, arm: str, other: str, metric: str) -> str:
        """`surely lower by 3.1 points (2.0 to 4.2)`, `perhaps ...` or `no difference seen (-0.2 points, -1.3 to 0.9)`."""
        change = self.change(arm, other, metric)
        return "not compared" if change is None else change.in_words(measure_of(metric).points)


def line_of(arm: str) -> str:
    """The line that an arm is a point of: what stands before its last @."""
    line, at, _ = arm.rpartition("@")
    return line if at else arm


def paired(metric: str, other: str) -> str:
    """The name of a difference from another arm."""
    return f"{metric} - {other}"


def listed(words: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1] if words else "")))


def _known(end: float | None) -> float:
    return math.nan if end is None else end


def _judged(name: str) -> bool:
    """Whether a metric is a difference that is called sure or not."""
    measure = measure_of(name)
    return measure.judged and (measure.is_change or " - " in name)


def _stderr(row: Finding) -> float:
    """Its standard error; what its interval implies where none was stored."""
    return stderr_of_interval(_known(row.ci_low), _known(row.ci_high)) if row.stderr is None else row.stderr


def _side(low: float | None, high: float | None) -> int:
    return -1 if _known(high) < 0 else 1 if _known(low) > 0 else 0


def _digits(value: float, digits: int) -> str:
    """Without a minus before a zero."""
    return "—" if math.isnan(value) else f"{value if round(value, digits) else 0.0:,.{digits}f}"
