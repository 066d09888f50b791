"""Rows with intervals: subjects on the same items share their draws, and each metric is resampled over its own items."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tasks.core.benchmarks.estimates import Intervals, Source, comparison_rows, estimate_rows, metric_rows
from tasks.core.metrics import Ratio, bootstrap_draws, estimate, without_interval
from tasks.core.seeds import seed_for

INTERVALS = Intervals(200, 0.9)
BASE, ROUND = Source("base", "greedy", "chair"), Source("round-1", "visvm", "chair")


def ratio(values: list[float]) -> Ratio:
    return Ratio(np.array(values), np.ones(len(values)))


def test_a_row_is_the_estimate_under_the_seed_of_its_items() -> None:
    ratios = {"recall": ratio([0.0, 1.0, 1.0]), "length": ratio([3.0, 4.0, 5.0, 9.0])}
    rows = metric_rows(ratios, BASE, INTERVALS)
    assert [(row.subject, row.decoding, row.benchmark, row.metric) for row in rows] == [
        ("base", "greedy", "chair", "recall"),
        ("base", "greedy", "chair", "length"),
    ]
    for row, n in zip(rows, (3, 4), strict=True):
        draws = bootstrap_draws(n, 200, seed_for("bootstrap", n))
        expected = estimate(ratios[row.metric], draws=draws, confidence=0.9)
        assert (row.value, row.stderr, row.ci_low, row.ci_high, row.n) == expected


def test_subjects_that_differ_by_a_constant_differ_surely() -> None:
    low, high = [0.0, 1.0, 1.0, 2.0], [1.0, 2.0, 2.0, 3.0]
    (row,) = comparison_rows(ROUND, BASE, {"length": ratio(high)}, {"length": ratio(low)}, INTERVALS)
    assert (row.subject_a, row.decoding_a, row.subject_b, row.decoding_b) == ("round-1", "visvm", "base", "greedy")
    assert (row.benchmark, row.metric, row.n) == ("chair", "length", 4)
    assert (row.diff, row.ci_low, row.ci_high) == (1.0, 1.0, 1.0)


def test_subjects_on_other_items_are_not_compared() -> None:
    with pytest.raises(ValueError, match="needs the same items"):
        comparison_rows(ROUND, BASE, {"length": ratio([1.0, 2.0])}, {"length": ratio([1.0])}, INTERVALS)


def test_what_has_no_interval_is_a_row_too() -> None:
    (row,) = estimate_rows({"ms": without_interval(7.0, 3)}, BASE)
    assert (row.metric, row.value, row.n) == ("ms", 7.0, 3) and math.isnan(row.stderr)
    assert metric_rows({}, BASE, INTERVALS) == []
