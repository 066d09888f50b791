"""The gate has two sides: fewer hallucinations by the interval, and recall non-inferior."""

from __future__ import annotations

import re

import pytest

from storage import lake
from storage.schema import Comparison, Decision
from tasks.configs.evaluate import PromoteConfig
from tasks.evaluate.promote import decide, decide_accuracy, promote
from tasks.stage.quarantine import StageInputError


def difference(metric: str, low: float, high: float) -> Comparison:
    return Comparison("round-1", "greedy", "base", "greedy", "chair", metric, (low + high) / 2, low, high, 0.01, 300)


CASES = [
    # CHAIRi's interval, recall's, promoted, why
    ((-0.10, -0.02), (-0.01, 0.02), True, r"promoted: chair_i -0\.060 \[-0\.100, -0\.020\] is below zero, recall"),
    ((-0.10, 0.01), (-0.01, 0.02), False, r"rejected: chair_i .* does not lie below zero$"),
    ((-0.10, -0.02), (-0.05, 0.02), False, r"rejected: recall .* may be lower by more than 0\.020, though chair_i"),
    ((-0.10, 0.01), (-0.05, 0.02), False, r"does not lie below zero, and recall .* may be lower"),
]


@pytest.mark.parametrize(("hallucination", "recall", "promoted", "why"), CASES)
def test_a_candidate_must_be_better_by_its_interval_and_recall_non_inferior(
    hallucination: tuple[float, float], recall: tuple[float, float], promoted: bool, why: str
) -> None:
    rows = [difference("chair_i", *hallucination), difference("recall", *recall), difference("chair_s", 0.5, 0.6)]
    output = promote.fn(PromoteConfig(), lake.publish(Comparison, rows), candidate="round-1", champion="base")
    assert output.promoted is promoted
    (decision,) = lake.read_rows(Decision, output.decisions)
    assert (decision.candidate, decision.champion, decision.promoted) == ("round-1", "base", promoted)
    assert decision.reason.startswith("round-1 against base: ")
    assert re.search(why, decision.reason), decision.reason


def test_touching_the_bounds_is_not_enough() -> None:
    assert not decide(difference("chair_i", -0.1, 0.0), difference("recall", 0, 0), 0.02)[0]
    assert not decide(difference("chair_i", -0.1, -0.01), difference("recall", -0.02, 0.1), 0.02)[0]


def test_an_unknown_interval_promotes_nobody() -> None:
    nan = float("nan")
    assert not decide(difference("chair_i", nan, nan), difference("recall", 0, 0), 0.02)[0]
    assert not decide(difference("chair_i", -0.2, -0.1), difference("recall", nan, nan), 0.02)[0]


def test_the_profile_names_the_metric() -> None:
    rows = [difference("chair_i", -0.2, -0.1), difference("chair_s", -0.2, 0.1), difference("recall", 0, 0)]
    output = promote.fn(PromoteConfig(metric="chair_s"), lake.publish(Comparison, rows), candidate="c", champion="b")
    assert not output.promoted
    assert "chair_s" in str(output.reason)


@pytest.mark.parametrize(
    ("low", "high", "promoted", "why"),
    [
        (0.01, 0.09, True, r"^promoted: accuracy \+0\.050 \[\+0\.010, \+0\.090\] is above zero$"),
        (0.0, 0.09, False, r"^rejected: accuracy .* does not lie above zero$"),
        (-0.09, -0.01, False, r"^rejected: accuracy"),
        (float("nan"), float("nan"), False, r"^rejected: accuracy"),
    ],
)
def test_answers_are_promoted_by_accuracy_alone(low: float, high: float, promoted: bool, why: str) -> None:
    verdict, reason = decide_accuracy(difference("accuracy", low, high))
    assert verdict is promoted and re.search(why, reason), reason
    rows = [difference("accuracy", low, high), difference("staged", -1, -1), difference("length", 9, 9)]
    output = promote.fn(PromoteConfig(metric="accuracy"), lake.publish(Comparison, rows), candidate="c", champion="b")
    assert (output.promoted, output.reason) == (promoted, f"c against b: {reason}")


def test_a_metric_of_another_benchmark_is_refused() -> None:
    rows = lake.publish(Comparison, [difference("accuracy", 0.1, 0.2), difference("staged", 1, 1)])
    with pytest.raises(StageInputError, match=r"promote.metric is chair_i, but .* accuracy, staged: set accuracy"):
        promote.fn(PromoteConfig(), rows, candidate="c", champion="b")
