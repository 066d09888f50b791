"""Whether a sentence is true of its image, without annotations: several verdicts that must agree (SENTINEL, arXiv 2507.12455).

The paper's verdicts are two open-vocabulary detectors. Here a detector is a list of the objects in an image; a score of the
sentence, with a band of doubt around a bound, may be another.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum


class Verdict(StrEnum):
    """What a sentence is called."""

    TRUE = "true"
    HALLUCINATED = "hallucinated"
    UNCERTAIN = "uncertain"


def by_objects(named: Iterable[str], detected: Sequence[frozenset[str] | None]) -> Verdict:
    """The verdict of detectors on a sentence that names these objects; all detectors must agree on an object.

    Hallucinated if an object is in no detector's list, true if every object is in all of them; uncertain if the sentence names
    none, if detectors disagree and no object is in no list, or if a detector has not seen the image.

    Args:
        named: objects that the sentence names.
        detected: the objects of its image by each detector, at least one; None: the detector has no list of this image.
    """
    lists = [there for there in detected if there is not None]
    if not lists or len(lists) < len(detected):
        return Verdict.UNCERTAIN
    votes = {sum(name in there for there in lists) for name in named}
    if 0 in votes:
        return Verdict.HALLUCINATED
    return Verdict.TRUE if votes == {len(lists)} else Verdict.UNCERTAIN


def by_score(score: float | None, *, hallucinated_below: float, true_from: float) -> Verdict:
    """The verdict of a score; uncertain between the two bounds and without a score.

    Raises:
        ValueError: bounds in the wrong order.
    """
    if hallucinated_below > true_from:
        raise ValueError(
            f"hallucinated_below is {hallucinated_below:g}, true_from {true_from:g}: want the first no larger"
        )
    if score is None:
        return Verdict.UNCERTAIN
    if score >= true_from:
        return Verdict.TRUE
    return Verdict.HALLUCINATED if score < hallucinated_below else Verdict.UNCERTAIN


def agreed(verdicts: Sequence[Verdict]) -> Verdict:
    """What all say, if they say the same; else uncertain.

    Raises:
        ValueError: no verdicts.
    """
    if not verdicts:
        raise ValueError("no verdict: at least one is needed")
    return verdicts[0] if len(set(verdicts)) == 1 else Verdict.UNCERTAIN
