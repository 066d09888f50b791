"""From counts of items to rows with intervals: how every table of metrics and of comparisons is made.

Items are resampled with a seed that depends on their number only, so that two subjects measured on the same items share the
draws and can be compared in pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from storage.schema import Comparison, Metric
from tasks.core.metrics import (
    Estimate,
    Ratio,
    bootstrap_draws,
    estimate,
    paired_difference,
    percentiles,
    without_interval,
)
from tasks.core.seeds import seed_for


class Source(NamedTuple):
    """What a figure is of, and which benchmark measured it."""

    subject: str
    decoding: str
    benchmark: str


@dataclass(frozen=True)
class Intervals:
    """How intervals are made: the percentile bootstrap over items."""

    resamples: int
    confidence: float = 0.95
    seed: str = "bootstrap"  # first part of the draws' seed

    def draws(self, n: int) -> np.ndarray:
        """Item indices [resamples, n]."""
        return bootstrap_draws(n, self.resamples, seed_for(self.seed, n))

    def estimate(self, ratio: Ratio) -> Estimate:
        """A metric with its interval."""
        return estimate(ratio, draws=self.draws(len(ratio.top)), confidence=self.confidence)


def metric_rows(ratios: Mapping[str, Ratio], source: Source, intervals: Intervals) -> list[Metric]:
    """A row for each metric, in their order; ratios of the same items share the draws."""
    draws = _draws(ratios, intervals)
    figures = {
        name: estimate(ratio, draws=draws[len(ratio.top)], confidence=intervals.confidence)
        for name, ratio in ratios.items()
    }
    return estimate_rows(figures, source)


def estimate_rows(figures: Mapping[str, Estimate], source: Source) -> list[Metric]:
    """A row for each estimate, in their order."""
    subject, decoding, benchmark = source
    return [Metric(subject, decoding, benchmark, name, *figure) for name, figure in figures.items()]


def comparison_rows(
    a: Source, b: Source, ratios_a: Mapping[str, Ratio], ratios_b: Mapping[str, Ratio], intervals: Intervals
) -> list[Comparison]:
    """Paired differences a - b, one row for each metric of `ratios_a`; the benchmark is that of `a`.

    Raises:
        ValueError: the two were not measured on the same number of items.
    """
    draws, rows = _draws(ratios_a, intervals), []
    for name, ratio in ratios_a.items():
        difference = paired_difference(
            ratio, ratios_b[name], draws=draws[len(ratio.top)], confidence=intervals.confidence
        )
        rows.append(Comparison(a.subject, a.decoding, b.subject, b.decoding, a.benchmark, name, *difference))
    return rows


def clustered_estimate(
    groups: Sequence[Sequence[Any]], statistic: Callable[[list[Any]], float], intervals: Intervals
) -> Estimate:
    """A statistic of items that belong together in groups, resampled by group; `n` counts the items.

    Args:
        groups: the items of each.
        statistic: of a list of items; NaN where it has none.
        intervals: how they are made.
    """
    items = [item for group in groups for item in group]
    value = statistic(items)
    if len(groups) < 2:
        return without_interval(value, len(items))
    resampled = [statistic([item for index in draw for item in groups[index]]) for draw in intervals.draws(len(groups))]
    known = np.array([figure for figure in resampled if not np.isnan(figure)])
    if len(known) < 2:
        return without_interval(value, len(items))
    return Estimate(value, float(known.std(ddof=1)), *percentiles(known, intervals.confidence), len(items))


def _draws(ratios: Mapping[str, Ratio], intervals: Intervals) -> dict[int, np.ndarray]:
    """The draws for each number of items."""
    return {n: intervals.draws(n) for n in {len(ratio.top) for ratio in ratios.values()}}
