"""Verdicts on sentences: detectors agree object by object, scores have a band of doubt, and what disagrees is uncertain."""

from __future__ import annotations

import pytest

from tasks.core.reward.verdicts import Verdict, agreed, by_objects, by_score

TRUE, WRONG, UNSURE = Verdict.TRUE, Verdict.HALLUCINATED, Verdict.UNCERTAIN
DOG, BOTH, NOTHING = frozenset({"dog"}), frozenset({"dog", "cat"}), frozenset[str]()


@pytest.mark.parametrize(
    ("named", "detected", "expected"),
    [
        (["dog"], [DOG], TRUE),
        (["cat"], [DOG], WRONG),
        (["dog", "cat"], [DOG], WRONG),  # one object that is not there is enough
        (["dog", "dog"], [DOG, BOTH], TRUE),
        (["dog", "cat"], [DOG, BOTH], UNSURE),  # they disagree on the cat
        (["cat", "car"], [DOG, BOTH], WRONG),  # they disagree on the cat, not on the car
        (["dog"], [NOTHING], WRONG),  # an image that a detector saw nothing in
        (["dog"], [DOG, None], UNSURE),  # an image that a detector has not seen
        (["cat"], [DOG, None], UNSURE),
        ([], [DOG], UNSURE),
    ],
)
def test_detectors_must_agree_on_an_object(
    named: list[str], detected: list[frozenset[str] | None], expected: Verdict
) -> None:
    assert by_objects(named, detected) is expected


# Each detector calls the whole sentence hallucinated, but for another object: on none of the objects they agree.
def test_two_detectors_that_miss_different_objects_have_not_agreed() -> None:
    assert by_objects(["dog", "cat"], [DOG, frozenset({"cat"})]) is UNSURE


@pytest.mark.parametrize(
    ("score", "expected"), [(0.30, TRUE), (0.29, UNSURE), (0.10, UNSURE), (0.09, WRONG), (None, UNSURE)]
)
def test_a_score_within_its_band_is_uncertain(score: float | None, expected: Verdict) -> None:
    assert by_score(score, hallucinated_below=0.1, true_from=0.3) is expected


def test_without_a_band_every_score_has_a_verdict_and_bounds_in_the_wrong_order_are_refused() -> None:
    assert by_score(0.2, hallucinated_below=0.2, true_from=0.2) is TRUE
    assert by_score(0.1999, hallucinated_below=0.2, true_from=0.2) is WRONG
    with pytest.raises(ValueError, match=r"hallucinated_below is 0\.3, true_from 0\.1"):
        by_score(0.2, hallucinated_below=0.3, true_from=0.1)


def test_verdicts_agree_or_are_uncertain() -> None:
    assert agreed([TRUE, TRUE]) is TRUE
    assert agreed([WRONG]) is WRONG
    assert agreed([TRUE, WRONG]) is UNSURE
    assert agreed([TRUE, UNSURE]) is UNSURE
    with pytest.raises(ValueError, match="no verdict"):
        agreed([])
