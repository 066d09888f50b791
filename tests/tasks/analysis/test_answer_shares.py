"""Shares of answers: equal ones are counted word for word, and an answer without a conclusion is no wrong answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from storage import lake
from storage.artifacts import Table
from storage.schema import Metric, Score
from tasks.analysis.answer_shares import concluding, sameness
from tasks.configs.evaluate import EvaluateConfig
from tasks.stage.quarantine import StageInputError

CONFIG = EvaluateConfig(bootstrap=100)


def scores(*texts: str) -> Table[Score]:
    details = [json.dumps({"text": text}) for text in texts]
    rows = [Score("a", "greedy", "vqa", f"q{i}", "right", 1.0, detail) for i, detail in enumerate(details)]
    return lake.publish(Score, [*rows, Score("a", "greedy", "vqa", "q0", "staged", 0.0, None)])


def test_answers_as_before_are_counted_word_for_word(home: Path) -> None:
    result = sameness(CONFIG, scores("Yes", "3", "left"), scores("Yes ", "4", "left"), subject="a")
    (row,) = lake.read_rows(Metric, result.metrics)
    assert (row.metric, row.value, row.n) == ("same_answers", pytest.approx(2 / 3), 3)
    with pytest.raises(StageInputError, match="1 in common"):
        sameness(CONFIG, scores("Yes"), scores("Yes", "No"), subject="a")


def test_an_answer_without_a_conclusion_is_not_counted_as_wrong(home: Path) -> None:
    rows = [
        Score("a", "greedy", "vqa", f"q{i}", "right", 0.0, json.dumps({"text": "", "said": conclusion}))
        for i, conclusion in enumerate(("Yes", "", "left", ""))
    ]
    (row,) = lake.read_rows(Metric, concluding(CONFIG, lake.publish(Score, rows), subject="a").metrics)
    assert (row.metric, row.value) == ("concluded", 0.5)
