"""The stage that ends an experiment: the figures of all arms in one table, each arm under another name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from storage import lake
from storage.artifacts import Table
from storage.schema import Finding, Metric
from tasks.analysis.findings import Evidence, conclude, findings_of, spent, totals
from tasks.stage.quarantine import StageInputError


def metrics(**values: float) -> Table[Metric]:
    rows = [
        Metric("base", "d", "chair", name.replace("_at_", "@"), v, 0.1, v - 1, v + 1, 7) for name, v in values.items()
    ]
    return lake.publish(Metric, rows)


def test_a_point_of_a_line_is_a_separate_arm_and_work_is_for_one_caption(home: Path) -> None:
    work = {"decode_tokens": 70.0, "search_seconds": 0.7, "forwards": 3.0}
    evidence = Evidence("V", None, (metrics(auc=0.5, auc_at_3=0.7),), {}, work, {"spread": 0.2})
    rows = lake.read_rows(Finding, conclude.fn([evidence], experiment="e", seed=4).findings)
    assert {(row.arm, row.x, row.metric): row.value for row in rows} == {
        ("V", None, "auc"): 0.5, ("V@3", 3.0, "auc"): 0.7, ("V", None, "tokens"): 10.0,
        ("V", None, "ms"): pytest.approx(100.0), ("V", None, "spread"): 0.2,
    }  # fmt: skip
    assert {(row.seed, row.experiment) for row in rows} == {(4, "e")}


def test_the_points_of_a_line_stand_together_by_x(home: Path) -> None:
    points = (("w@2", 2.0), ("v@10", 10.0), ("v@2", 2.0), ("greedy", None))
    evidence = [Evidence(name, x, (), {}, {}, {"spread": 1.0}) for name, x in points]
    concluded = conclude.fn(evidence, experiment="e", seed=0)
    assert concluded.arms == findings_of(concluded).arms == ["w@2", "v@2", "v@10", "greedy"]


def test_two_arms_of_one_name_are_refused(home: Path) -> None:
    evidence = Evidence("V", None, (metrics(auc=0.5),))
    with pytest.raises(StageInputError, match="'V' has auc twice"):
        conclude.fn([evidence, evidence], experiment="e", seed=0)


def test_seconds_in_all_are_those_before_the_first_caption_and_those_of_each(home: Path) -> None:
    searched = replace(conclude.fn([], experiment="e", seed=0), counters={"search_seconds": 2.0})
    assert [(point.arm, point.facts) for point in totals("v", searched, 4, 10.0, (1, 100))] == [
        ("v@1", {"total_seconds": 10.5}), ("v@100", {"total_seconds": 60.0}),
    ]  # fmt: skip
    assert spent("search") != spent("search")  # NaN outside a run
