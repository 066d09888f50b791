"""The promotion gate: a candidate becomes the champion only if it is better, by its interval, and recall is non-inferior.

Captions: fewer hallucinations, and recall not lower by more than a tolerance. Answers: a larger share that is right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from storage import lake
from storage.artifacts import Table
from storage.schema import Comparison, Decision
from tasks.configs.evaluate import PromoteConfig
from tasks.stage.quarantine import StageInputError
from tasks.stage.results import StageResult
from tasks.stage.stage import stage


@dataclass(frozen=True)
class PromoteResult(StageResult):
    """Whether a candidate becomes the champion, and why."""

    decisions: Table[Decision]
    promoted: bool
    reason: str


@stage()
def promote(
    config: PromoteConfig,
    comparisons: Table[Comparison],
    *,
    candidate: str,
    champion: str,
    beyond: Sequence[str] = (),
) -> PromoteResult:
    """Decide between candidate (a) and champion (b) on their paired differences.

    `beyond`: bounds of drift that the candidate passed, in words; with any, it is rejected.

    Raises:
        StageInputError: the profile's metric is none of the benchmark's.
    """
    rows = {row.metric: row for row in lake.read_rows(Comparison, comparisons)}
    if config.metric not in rows:
        raise StageInputError(
            f"promote.metric is {config.metric}, but the benchmark measures {', '.join(sorted(rows))}: set accuracy for "
            "task: answers, chair_i or chair_s for task: captions"
        )
    if config.metric == "accuracy":
        promoted, reason = decide_accuracy(rows["accuracy"])
    else:
        promoted, reason = decide(rows[config.metric], rows["recall"], config.recall_tolerance)
    if beyond:
        promoted, reason = False, f"rejected: drift limit exceeded: {'; '.join(beyond)} ({reason})"
    reason = f"{candidate} against {champion}: {reason}"
    decision = Decision(candidate, champion, promoted, reason)
    return PromoteResult(decisions=lake.publish(Decision, [decision]), promoted=promoted, reason=reason)


def decide(hallucination: Comparison, recall: Comparison, tolerance: float) -> tuple[bool, str]:
    """(promoted, why): hallucination's interval lies below zero, and recall's above -tolerance."""
    better = hallucination.ci_high < 0
    sees = recall.ci_low > -tolerance
    first = f"{hallucination.metric} {_interval(hallucination)}"
    second = f"recall {_interval(recall)}"
    if better and sees:
        return True, f"promoted: {first} is below zero, {second} stays above -{tolerance:.3f}"
    if not better and not sees:
        return (
            False,
            f"rejected: {first} does not lie below zero, and {second} may be lower by more than {tolerance:.3f}",
        )
    if not better:
        return False, f"rejected: {first} does not lie below zero"
    return False, f"rejected: {second} may be lower by more than {tolerance:.3f}, though {first} is below zero"


def decide_accuracy(accuracy: Comparison) -> tuple[bool, str]:
    """(promoted, why): accuracy's interval lies above zero. An answer left out is wrong, so nothing is gained by silence."""
    if accuracy.ci_low > 0:
        return True, f"promoted: accuracy {_interval(accuracy)} is above zero"
    return False, f"rejected: accuracy {_interval(accuracy)} does not lie above zero"


def _interval(row: Comparison) -> str:
    return f"{row.diff:+.3f} [{row.ci_low:+.3f}, {row.ci_high:+.3f}]"
