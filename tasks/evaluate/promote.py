"""The promotion gate: a candidate becomes the champion only if it is surely better, and surely not blinder.

Captions: fewer hallucinations, and hardly less Recall. Answers: a larger share that is right.
"""

from __future__ import annotations

from collections.abc import Sequence

from storage import lake
from storage.artifacts import ArtifactRef, StageOutput
from storage.schema import Comparison, Decision
from tasks.configs.evaluate import PromoteConfig
from tasks.stage.runtime import RuntimeConfig
from tasks.stage.stage import StageInputError, stage


@stage()
def promote(
    config: PromoteConfig,
    comparisons: ArtifactRef,
    *,
    candidate: str,
    champion: str,
    beyond: Sequence[str] = (),
    runtime: RuntimeConfig,
    label: str = "",
) -> StageOutput:
    """Decide between candidate (a) and champion (b) on their paired differences. Output: decisions. Facts: promoted, reason.

    `beyond`: bounds of drift that the candidate passed, in words; with any, it is kept out.

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
        promoted, reason = False, f"kept: it drifted, {'; '.join(beyond)} ({reason})"
    reason = f"{candidate} against {champion}: {reason}"
    decision = Decision(candidate, champion, promoted, reason)
    return StageOutput(
        refs={"decisions": lake.publish(Decision, [decision])}, facts={"promoted": promoted, "reason": reason}
    )


def decide(hallucination: Comparison, recall: Comparison, tolerance: float) -> tuple[bool, str]:
    """(promoted, why): hallucination's interval lies below zero, and recall's above -tolerance."""
    better = hallucination.ci_high < 0
    sees = recall.ci_low > -tolerance
    first = f"{hallucination.metric} {_interval(hallucination)}"
    second = f"recall {_interval(recall)}"
    if better and sees:
        return True, f"promoted: {first} is below zero, {second} stays above -{tolerance:.3f}"
    if not better and not sees:
        return False, f"kept: {first} does not lie below zero, and {second} may be lower by more than {tolerance:.3f}"
    if not better:
        return False, f"kept: {first} does not lie below zero"
    return False, f"kept: {second} may be lower by more than {tolerance:.3f}, though {first} is below zero"


def decide_accuracy(accuracy: Comparison) -> tuple[bool, str]:
    """(promoted, why): accuracy's interval lies above zero. An answer left out is wrong, so nothing is gained by silence."""
    if accuracy.ci_low > 0:
        return True, f"promoted: accuracy {_interval(accuracy)} is above zero"
    return False, f"kept: accuracy {_interval(accuracy)} does not lie above zero"


def _interval(row: Comparison) -> str:
    return f"{row.diff:+.3f} [{row.ci_low:+.3f}, {row.ci_high:+.3f}]"
