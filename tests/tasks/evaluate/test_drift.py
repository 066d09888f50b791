"""Drift as a stage: rows and facts, the same samples on both sides, and bounds that need what was measured."""

from __future__ import annotations

from dataclasses import replace

import pytest

from storage import lake
from storage.artifacts import Table
from storage.schema import Caption, Comparison, Metric
from tasks.configs.evaluate import DriftConfig
from tasks.evaluate.drift import drift
from tasks.stage.quarantine import StageInputError
from tests.support.small_world import captions_of

BASE = [
    f"There is a dog and a {name}. It is red." for name in ("cat", "cup", "car", "bus", "bed", "fork", "bird", "book")
]
LONG = [f"{text} There is a tree. There is a tree." for text in BASE]


def drifted(config: DriftConfig, texts: list[str], general: Table | None = None):
    return drift.fn(
        config,
        captions_of(texts),
        captions_of(BASE),
        subject="round-1",
        general=general,
        bootstrap=100,
    )


def general_change(low: float, *, metric: str = "accuracy") -> Table:
    row = Comparison("round-1", "greedy", "base", "greedy", "vqa", metric, low + 0.02, low, low + 0.04, 0.5, 40)
    return lake.publish(Comparison, [row])


def test_figures_are_rows_with_intervals_and_facts() -> None:
    output = drifted(DriftConfig(), LONG)
    rows = {row.metric: row for row in lake.read_rows(Metric, output.metrics)}
    assert {(row.subject, row.decoding, row.benchmark, row.n) for row in rows.values()} == {
        ("round-1", "greedy", "drift", 8)
    }
    assert output.beyond == []
    assert output.figures["length_change"] == rows["length_change"].value == pytest.approx(0.8)
    assert rows["length_change"].ci_low <= rows["length_change"].value <= rows["length_change"].ci_high
    assert output.figures["repetition"] == pytest.approx(1 / 4)
    assert "general_change" not in rows


def test_all_bounds_that_are_passed_are_listed() -> None:
    config = DriftConfig(questions=40, max_length_change=0.5, max_ngram_drift=0.1, max_general_drop=0.05)
    beyond = drifted(config, LONG, general_change(-0.1)).beyond
    assert [line.split()[0] for line in beyond] == ["captions", "word", "general"]
    output = drifted(config, BASE, general_change(-0.04))
    assert output.beyond == []
    assert output.figures["general_change"] == pytest.approx(-0.02)


def test_a_bound_on_a_benchmark_that_was_not_run_is_an_error() -> None:
    with pytest.raises(StageInputError, match=r"drift\.questions above 0"):
        drifted(DriftConfig(max_general_drop=0.05), BASE)
    with pytest.raises(StageInputError, match="0 rows of metric accuracy"):
        drifted(DriftConfig(max_general_drop=0.05), BASE, general_change(0, metric="chair_i"))


def test_captions_of_other_samples_are_an_error() -> None:
    rows = lake.read_rows(Caption, captions_of(BASE))
    fewer = lake.publish(Caption, rows[1:])
    with pytest.raises(StageInputError, match="has captions of 7 samples, the base of 8, 7 in common"):
        drift.fn(DriftConfig(), fewer, captions_of(BASE), subject="round-1")
    twice = lake.publish(Caption, [*rows, replace(rows[0], strategy="visvm")])
    with pytest.raises(StageInputError, match="9 captions of 8 samples"):
        drift.fn(DriftConfig(), twice, captions_of(BASE), subject="round-1")


def test_empty_captions_of_the_base_are_an_error() -> None:
    with pytest.raises(StageInputError, match="round-1: every caption of the base is empty"):
        drift.fn(DriftConfig(), captions_of(BASE), captions_of([""] * 8), subject="round-1")
