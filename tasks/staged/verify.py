"""The verification gate: which staged answers are learned, and why the others are not (LLaVA-CoT, section 3.1).

Three gates, of which the profile names one. They are stages of their own because what each may read differs: `verify`
compares with the data set's answers, `verify_by_judge` with a judge's verdicts on them, `verify_by_agreement` with the policy's
own answers and nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from storage import lake
from storage.artifacts import Table
from storage.schema import Answer, Caption, Rollout, Sample, Verdict
from tasks.core.data.questions import is_right
from tasks.core.staged import answers as staged
from tasks.stage.quarantine import StageInputError, check_nothing_lost
from tasks.stage.results import StageResult
from tasks.stage.stage import stage


@dataclass(frozen=True)
class VerifyResult(StageResult):
    """Which answers are learned."""

    accepted: Table[Caption]
    verdicts: Table[Verdict]  # a row a sample
    refused: Table[Sample]  # to be tried again


@stage(reads_annotations=True)
def verify(captions: Table[Caption], samples: Table[Sample], answers: Table[Answer], *, attempt: int) -> VerifyResult:
    """Accept the staged answers whose conclusion is the data set's answer.

    Raises:
        StageInputError: a question has no answer.
    """
    truth = {row.sample_id: row.answer for row in lake.read_rows(Answer, answers)}
    missing = [row.sample_id for row in lake.read_rows(Sample, samples) if row.sample_id not in truth]
    if missing:
        raise StageInputError(
            f"{len(missing)} questions have no answer to verify with, the first is {missing[0]}; complete the file of "
            "questions.train, or use staged.verify=agreement"
        )
    return _ruled(
        captions, samples, attempt, lambda sample_id, text: None if is_right(text, truth[sample_id]) else "wrong"
    )


@stage()
def verify_by_agreement(
    captions: Table[Caption], samples: Table[Sample], rollouts: Table[Rollout], *, min_agreement: float, attempt: int
) -> VerifyResult:
    """Accept the staged answers that conclude what most of the policy's own do. Reads no annotation.

    `min_agreement`: share of a question's rollouts that must conclude the same.
    """
    texts: dict[str, list[str]] = {}
    for row in lake.read_rows(Rollout, rollouts):
        texts.setdefault(row.sample_id, []).append(row.text)

    def problem(sample_id: str, conclusion: str) -> str | None:
        return staged.agreement_problem(conclusion, texts.get(sample_id, []), min_agreement)

    return _ruled(captions, samples, attempt, problem)


@stage()
def verify_by_judge(
    captions: Table[Caption], samples: Table[Sample], judged: Table[Verdict], *, attempt: int
) -> VerifyResult:
    """Accept the staged answers that a judge called valid (`judge`'s output)."""
    valid = {row.sample_id for row in lake.read_rows(Verdict, judged) if row.accepted}
    return _ruled(captions, samples, attempt, lambda sample_id, _: None if sample_id in valid else "judge")


def _ruled(
    captions: Table[Caption], samples: Table[Sample], attempt: int, problem: Callable[[str, str], str | None]
) -> VerifyResult:
    """The gate over all samples; counters: samples by the verdict's reason.

    Args:
        captions: at most one answer a sample; a sample without one is refused as `no_answer`.
        samples: the questions of this attempt.
        attempt: 0-based.
        problem: of a sample id and a conclusion: why it is refused, or None.
    """
    answers = {row.sample_id: row for row in lake.read_rows(Caption, captions)}
    questions = lake.read_rows(Sample, samples)
    if unknown := answers.keys() - {sample.sample_id for sample in questions}:
        raise StageInputError(f"{len(unknown)} answers belong to none of the {len(questions)} questions asked")
    accepted, refused, verdicts = [], [], []
    for sample in questions:
        text = answers[sample.sample_id].text if sample.sample_id in answers else ""
        ruling = staged.rule(text, lambda conclusion, sample=sample: problem(sample.sample_id, conclusion))  # type: ignore[misc]
        good = ruling.reason == staged.ACCEPTED
        verdicts.append(Verdict(sample.sample_id, attempt, text, ruling.conclusion, good, ruling.reason))
        if good:
            accepted.append(answers[sample.sample_id])
        else:
            refused.append(sample)
    check_nothing_lost("verify", len(questions), len(accepted) + len(refused), 0, 0.0, unit="questions")
    return VerifyResult(
        accepted=lake.publish(Caption, accepted),
        verdicts=lake.publish(Verdict, verdicts),
        refused=lake.publish(Sample, refused),
        counters={reason: float(count) for reason, count in Counter(verdict.reason for verdict in verdicts).items()},
    )
