"""Accuracy: the conclusion alone counts, by kind too, and rounds are compared question by question."""

from __future__ import annotations

import json

import pytest

from storage import lake
from storage.artifacts import Table
from storage.schema import Answer, Caption, Comparison, Metric, Score
from tasks.configs.evaluate import EvaluateConfig
from tasks.core.staged.answers import in_stages
from tasks.evaluate.answers import evaluate_answers
from tasks.evaluate.evaluate import compare, evaluate
from tasks.stage.quarantine import StageInputError
from tests.support.small_world import captions_of, drawn, samples

CONFIG = EvaluateConfig(bootstrap=200)
KINDS = ["what", "how_many"] * 4


def truth(kinds: list[str] = KINDS) -> Table:
    rows = [
        Answer(sample.sample_id, "Yes" if kind == "what" else "3", kind)
        for sample, kind in zip(samples(True), kinds, strict=True)
    ]
    return lake.publish(Answer, rows)


def staged(conclusion: str) -> str:
    return in_stages(["I look.", "There is no dog.", "So it is no.", conclusion])


RIGHT = ["Yes", "3"] * 4


def measured(texts: list[str], subject: str = "base", answers: Table | None = None):
    with lake.annotations_allowed():
        return evaluate_answers.fn(
            CONFIG, captions_of(texts), drawn(True).samples, answers or truth(), subject=subject, decoding="greedy",
        )  # fmt: skip


def test_right_answers_are_right_plain_or_staged() -> None:
    assert measured(RIGHT).figures == {
        "accuracy": 1, "staged": 0, "accuracy_how_many": 1, "accuracy_what": 1, "length": 1
    }  # fmt: skip
    facts = measured([staged(text) for text in RIGHT]).figures
    assert (facts["accuracy"], facts["staged"]) == (1, 1)
    assert facts["length"] == 2 + 4 + 4 + 1  # words, tags aside


def test_only_the_conclusion_counts() -> None:
    wrong = [staged("No") if kind == "what" else staged("4") for kind in KINDS]
    assert measured([text.replace("There is no dog", "Yes, there are 3") for text in wrong]).figures["accuracy"] == 0
    cut = [staged(text).split("<CONCLUSION>")[0] for text in RIGHT]
    facts = measured(cut).figures
    assert (facts["accuracy"], facts["staged"]) == (0, 0)


def test_figures_by_kind_and_their_intervals() -> None:
    output = measured(["Yes", "4"] * 2 + ["No", "three"] * 2)
    assert output.figures["accuracy"] == 0.5
    assert (output.figures["accuracy_what"], output.figures["accuracy_how_many"]) == (0.5, 0.5)
    for row in lake.read_rows(Metric, output.metrics):
        assert row.ci_low <= row.value <= row.ci_high
        assert (row.subject, row.decoding, row.benchmark, row.n) == ("base", "greedy", "vqa", 8)


def test_every_question_has_its_scores_and_its_conclusion() -> None:
    rows = lake.read_rows(Score, measured([staged(text) for text in RIGHT]).scores)
    assert {(row.metric, row.benchmark, row.detail is None) for row in rows} == {
        ("right", "vqa", False), ("staged", "vqa", True),
    }  # fmt: skip
    assert len(rows) == 16
    for row in rows:
        if row.detail:
            detail = json.loads(row.detail)
            assert detail["said"] == detail["answer"] and detail["text"].endswith("</CONCLUSION>")
            assert detail["kind"] == ("what" if detail["answer"] == "Yes" else "how_many")


def test_a_missing_answer_is_an_error_not_a_smaller_n() -> None:
    rows = lake.read_rows(Caption, captions_of(RIGHT))[1:]
    with lake.annotations_allowed(), pytest.raises(StageInputError, match="8 questions went in, but 7 came out"):
        evaluate_answers.fn(
            CONFIG, lake.publish(Caption, rows), drawn(True).samples, truth(), subject="x", decoding="greedy",
        )  # fmt: skip
    with lake.annotations_allowed():
        known = lake.read_rows(Answer, truth())[1:]
    with pytest.raises(StageInputError, match="1 of 8 questions have no true answer"):
        measured(RIGHT, answers=lake.publish(Answer, known))


def test_a_difference_is_paired_signed_and_by_kind() -> None:
    better = measured([staged(text) for text in RIGHT], "round-1")
    worse = measured(["No" if kind == "what" else "3" for kind in KINDS])
    output = compare.fn(CONFIG, better.scores, worse.scores)
    rows = {row.metric: row for row in lake.read_rows(Comparison, output.comparisons)}
    assert rows.keys() == {"accuracy", "staged", "accuracy_what", "accuracy_how_many", "length"}
    assert {row.benchmark for row in rows.values()} == {"vqa"}
    assert (rows["accuracy"].subject_a, rows["accuracy"].subject_b, rows["accuracy"].diff) == ("round-1", "base", 0.5)
    assert 0 < rows["accuracy"].ci_low < 0.5 < rows["accuracy"].ci_high
    assert (rows["accuracy_what"].diff, rows["accuracy_what"].ci_low, rows["accuracy_how_many"].diff) == (1, 1, 0)
    assert (rows["staged"].diff, rows["length"].diff) == (1, 10)


def test_answers_are_not_compared_with_captions() -> None:
    from tests.support.small_world import truth as annotations

    with lake.annotations_allowed():
        captions = evaluate.fn(
            CONFIG, captions_of(RIGHT), drawn(True).samples, annotations(), subject="base", decoding="greedy",
        )  # fmt: skip
    with pytest.raises(StageInputError, match="scores of vqa, base of chair"):
        compare.fn(CONFIG, measured(RIGHT, "round-1").scores, captions.scores)
