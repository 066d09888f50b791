"""Tables of figures cut out, joined, and made of raters' verdicts."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage import lake
from storage.schema import Caption, Comparison, Finding, Metric
from tasks.analysis.excerpts import excerpt, ratings, together
from tasks.stage.quarantine import StageInputError

NAN = float("nan")


def test_an_excerpt_keeps_the_kind_of_table(home: Path) -> None:
    metrics = lake.publish(
        Metric, [Metric("b", "g", "vqa", name, 0.5, NAN, NAN, NAN, 9) for name in ("accuracy", "length")]
    )
    pairs = lake.publish(Comparison, [Comparison("a", "g", "b", "g", "vqa", "accuracy", 0.1, 0, 0.2, 0.5, 9)])
    rows = lake.read_rows(Metric, excerpt(metrics, ["accuracy"]).excerpt)
    assert [row.metric for row in rows] == ["accuracy"]
    assert excerpt(pairs, ["accuracy"]).excerpt.kind == "comparisons"
    with pytest.raises(StageInputError, match="none of recall"):
        excerpt(metrics, ["recall"])
    captions = lake.publish(Caption, [Caption("s0", "i0", "p", "greedy", "a", 1, "end", 1, 1)])
    with pytest.raises(StageInputError, match="want a table of"):
        excerpt(captions, ["recall"])


def test_differences_of_two_kinds_become_one_table(home: Path) -> None:
    tables = [
        lake.publish(Comparison, [Comparison("a", "g", "b", "g", "x", metric, 0.1, 0, 0.2, 0.5, 9)])
        for metric in ("chair_i", "chair_i: food")
    ]
    rows = lake.read_rows(Comparison, together(tables).comparisons)
    assert [row.metric for row in rows] == ["chair_i", "chair_i: food"]


def test_raters_become_points(home: Path) -> None:
    arms = ("a against b", "a against b, Zoe", "a against b, Ann")
    rows = [Finding("human-eval", arm, None, 0, "win_rate", n / 10, 0.1, None, 9) for n, arm in enumerate(arms)]
    result = ratings(lake.publish(Finding, rows), subject="a")
    values = {row.metric: row.value for row in lake.read_rows(Metric, result.metrics)}
    assert values == {"win_rate": 0.0, "win_rate@1": 0.2, "win_rate@2": 0.1}
