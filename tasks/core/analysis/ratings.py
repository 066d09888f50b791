"""The results of a blinded sheet: shares with intervals, position bias, and how far the raters agree.

A *verdict* is a rating seen from one author: +1 its caption is better, 0 a tie, -1 the other's. The win rate is the share of
+1, so ties count against, as in VisVM's human evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from tasks.core.benchmarks.estimates import Intervals
from tasks.core.metrics import Ratio, percentiles

Key = tuple[str, int]  # rater, pair


class Figure(NamedTuple):
    """A figure of a rater, or of all together (rater is empty); NaN bounds: it has no interval."""

    rater: str
    metric: str
    value: float
    low: float
    high: float
    n: int


def wilson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share (1927); NaN without a trial."""
    if not n:
        return math.nan, math.nan
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def cohen_kappa(table: np.ndarray) -> float:
    """Agreement of two raters beyond chance (Cohen 1960) from their counts [C, C]; NaN if both give a single answer only."""
    share = table / table.sum() if table.sum() else table
    expected = float(share.sum(axis=1) @ share.sum(axis=0))
    return (float(np.trace(share)) - expected) / (1 - expected) if share.any() and expected < 1 else math.nan


def krippendorff_alpha(table: np.ndarray) -> float:
    """Agreement of any number of raters, nominal (Krippendorff 2011), from coincidences [C, C]; NaN without two answers."""
    total, marginal = float(table.sum()), table.sum(axis=1)
    expected = total * total - float(marginal @ marginal)
    return 1 - (total - 1) * (total - float(np.trace(table))) / expected if expected > 0 else math.nan


def rating_figures(
    verdicts: Mapping[Key, int],
    right: Mapping[int, bool],
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
) -> list[Figure]:
    """The figures of each rater, and of all together.

    Args:
        verdicts: (rater, pair) -> -1, 0 or +1, seen from one author.
        right: pair -> whether that author stood right; all pairs of the sheet.
        resamples: of the pairs, for intervals.
        confidence: of intervals.

    Returns:
        Of each rater, and pooled with an empty rater: `win_rate`, `tie_rate`, `loss_rate` (shares of the ratings), `net_rate`
        (wins less losses; its interval is of resampled pairs), `right_rate`
        (share of the right side among those that chose a side: far from 0.5 is position bias) and `missing` (pairs
        without a rating; pooled: without any). Of two raters `cohen_kappa`, of more `krippendorff_alpha`. Intervals are
        Wilson's where no pair has two ratings; else pairs are resampled, for ratings of one pair are not independent.
    """
    raters = sorted({rater for rater, _ in verdicts})
    figures = []
    intervals = Intervals(resamples, confidence, "sheet bootstrap")
    for rater in raters:
        mine = {key: verdict for key, verdict in verdicts.items() if key[0] == rater}
        figures += _shares(rater, mine, right, intervals)
    figures += _shares("", verdicts, right, intervals)
    if len(raters) > 1:
        figures.append(_agreement(verdicts, raters, Intervals(resamples, confidence, "agreement bootstrap")))
    return figures


def _shares(rater: str, verdicts: Mapping[Key, int], right: Mapping[int, bool], intervals: Intervals) -> list[Figure]:
    """The shares of some ratings, and how many pairs lack one."""
    rated = sorted({pair for _, pair in verdicts})
    rows = {pair: index for index, pair in enumerate(rated)}
    counts = np.zeros((len(rated), 3))  # [pairs, verdict + 1]
    sided = np.zeros((len(rated), 2))  # [pairs, (left, right)]
    for (_, pair), verdict in verdicts.items():
        counts[rows[pair], verdict + 1] += 1
        if verdict:
            sided[rows[pair], int((verdict > 0) == right[pair])] += 1

    def share(metric: str, top: np.ndarray, bottom: np.ndarray) -> Figure:
        n = int(bottom.sum())
        value = float(top.sum()) / n if n else math.nan
        if n and bottom.max() > 1:
            interval = intervals.estimate(Ratio(top, bottom))[2:4]
        else:
            interval = wilson(int(top.sum()), n, intervals.confidence)
        return Figure(rater, metric, value, *interval, n)

    all_of = counts.sum(axis=1)
    lead = intervals.estimate(Ratio(counts[:, 2] - counts[:, 0], all_of))
    return [
        share("win_rate", counts[:, 2], all_of),
        share("tie_rate", counts[:, 1], all_of),
        share("loss_rate", counts[:, 0], all_of),
        Figure(rater, "net_rate", lead.value if rated else math.nan, lead.ci_low, lead.ci_high, lead.n),
        share("right_rate", sided[:, 1], sided.sum(axis=1)),
        Figure(rater, "missing", float(len(right) - len(rated)), math.nan, math.nan, len(right)),
    ]


def _agreement(verdicts: Mapping[Key, int], raters: Sequence[str], intervals: Intervals) -> Figure:
    """How far raters agree on the pairs that several of them rated; pairs are resampled."""
    by_pair: dict[int, list[tuple[int, int]]] = {}  # pair -> (rater's place, verdict)
    for (rater, pair), verdict in sorted(verdicts.items()):
        by_pair.setdefault(pair, []).append((raters.index(rater), verdict + 1))
    shared = [sorted(given) for _, given in sorted(by_pair.items()) if len(given) > 1]
    two = len(raters) == 2
    name, coefficient = ("cohen_kappa", cohen_kappa) if two else ("krippendorff_alpha", krippendorff_alpha)
    tables = np.array([_table([verdict for _, verdict in given], ordered=two) for given in shared]).reshape(-1, 3, 3)
    value, low, high = _resampled(tables, coefficient, intervals)
    return Figure("", name, value, low, high, len(shared))


def _table(given: Sequence[int], *, ordered: bool) -> np.ndarray:
    """One pair's part in the counts: a cell for two ordered raters, or coincidences that weigh as many as its ratings."""
    table = np.zeros((3, 3))
    for i, verdict in enumerate(given):
        for j, other in enumerate(given):
            if i != j and (not ordered or i < j):
                table[verdict, other] += 1 if ordered else 1 / (len(given) - 1)
    return table


def _resampled(
    tables: np.ndarray, coefficient: Callable[[np.ndarray], float], intervals: Intervals
) -> tuple[float, float, float]:
    """(value, low, high) of a coefficient of the sum of the pairs' tables [N, 3, 3]; NaN where it is undefined."""
    n = len(tables)
    value = coefficient(tables.sum(axis=0))
    if n < 2:
        return value, math.nan, math.nan
    resampled = np.array([coefficient(tables[draw].sum(axis=0)) for draw in intervals.draws(n)])
    known = resampled[~np.isnan(resampled)]
    if not len(known):
        return value, math.nan, math.nan
    return value, *percentiles(known, intervals.confidence)
