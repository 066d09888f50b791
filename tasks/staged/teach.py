"""Who else writes and judges staged answers: a model behind an endpoint; and what the policy's own search calibrates on.

The endpoint's stages are apart from the gate, so that a network's failure loses no verdict, and resume: what was answered
before a kill is not requested again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from storage import lake
from storage.artifacts import Table
from storage.schema import Answer, Caption, Image, Quarantined, Rollout, Sample, Verdict
from tasks.configs.staged import EndpointTeacher
from tasks.core.search.stages import STAGES, content, opening
from tasks.core.seeds import seed_for
from tasks.core.staged import answers as staged
from tasks.models.endpoint import EndpointError, Message, image_message
from tasks.models.loading import load_images
from tasks.stage.quarantine import StageInputError, check_nothing_lost
from tasks.stage.results import StageResult
from tasks.stage.stage import stage
from tasks.staged.replies import failed_requests, request_all

FAILED = 0.05  # share of requests that may fail for good before the stage does
RETRY_TEMPERATURE = 1.0  # of later attempts; the first one is greedy


def attempt_seed(seed: int, attempt: int) -> int:
    """The seed of an attempt (0-based): the run's own first, then others."""
    return seed if attempt == 0 else seed_for("attempt", seed, attempt)


def _sampling(seed: int, attempt: int) -> tuple[float, int | None]:
    """(temperature, seed) of an attempt's requests."""
    return (0.0, None) if attempt == 0 else (RETRY_TEMPERATURE, attempt_seed(seed, attempt) % 2**31)


def attempt_name(name: str, attempt: int) -> str:
    """What rows call the answers of an attempt: `swires`, then `swires-2`."""
    return name if attempt == 0 else f"{name}-{attempt + 1}"


@dataclass(frozen=True)
class TeachResult(StageResult):
    """A teacher's staged answers, and questions without one."""

    captions: Table[Caption]
    quarantine: Table[Quarantined]


@dataclass(frozen=True)
class JudgeResult(StageResult):
    """A judge's verdicts, and requests that failed."""

    judged: Table[Verdict]
    quarantine: Table[Quarantined]


@dataclass(frozen=True)
class ReasoningsResult(StageResult):
    """Parts of staged answers as answers by themselves."""

    rollouts: Table[Rollout]


@stage(reads_annotations=True)
def teach(
    teacher: EndpointTeacher,
    images: Table[Image],
    samples: Table[Sample],
    answers: Table[Answer],
    *,
    instruction: str,
    attempt: int,
    seed: int,
) -> TeachResult:
    """Staged answers by a model that is shown image, question and answer.

    A reply without four whole stages is in quarantine (`unparsable`), so is a request that failed for good (`endpoint`); the
    gate calls both `no_answer`. The question is shown without `instruction`. Resumes.

    Raises:
        EndpointError: nothing of a whole batch of requests was answered.
        TooManyQuarantined: too many requests failed.
    """
    questions = lake.read_rows(Sample, samples)
    truth = _answers(answers, questions)
    sample_of = {sample.sample_id: sample for sample in questions}

    def messages(ids: Sequence[str]) -> list[Message]:
        pictures = load_images(images, [sample_of[sample_id].image_id for sample_id in ids])
        texts = [
            staged.teaching_request(_question(sample_of[sample_id], instruction), truth[sample_id]) for sample_id in ids
        ]
        return [
            image_message(pictures[sample_of[sample_id].image_id], text)
            for sample_id, text in zip(ids, texts, strict=True)
        ]

    replies = request_all("teach", teacher, list(sample_of), messages, *_sampling(seed, attempt))
    rows, refused = [], failed_requests("teach", replies)
    check_nothing_lost("teach", len(questions), len(questions) - len(refused), len(refused), FAILED, unit="requests")
    for sample_id, reply in replies.items():
        if isinstance(reply, EndpointError):
            continue
        text = staged.staged_reply(reply)
        if text is None:
            refused.append(
                Quarantined("teach", sample_id, "unparsable", f"want four tagged parts, got {reply[:200]!r}")
            )
            continue
        rows.append(
            Caption(
                sample_id=sample_id,
                image_id=sample_of[sample_id].image_id,
                policy=teacher.model,
                strategy=attempt_name("teacher", attempt),
                text=text,
                steps=len(STAGES),
                stop_reason="end",
                candidates=1,
                decode_tokens=0,
            )
        )
    check_nothing_lost("teach", len(questions), len(rows), len(refused), 1.0, unit="questions")
    return TeachResult(
        captions=lake.publish(Caption, rows),
        quarantine=lake.publish(Quarantined, refused),
        counters={"asked": len(questions), "unparsable": sum(row.reason == "unparsable" for row in refused)},
    )


@stage(reads_annotations=True)
def judge(
    teacher: EndpointTeacher,
    captions: Table[Caption],
    samples: Table[Sample],
    answers: Table[Answer],
    *,
    instruction: str,
    attempt: int,
    seed: int,
) -> JudgeResult:
    """Whether a model calls each conclusion valid beside the known answer.

    Only answers whose form is right are judged, and only a plain `valid` counts as one. Resumes; errors as `teach`'s.
    """
    questions = {row.sample_id: row for row in lake.read_rows(Sample, samples)}
    truth = _answers(answers, list(questions.values()))
    texts = {row.sample_id: row.text for row in lake.read_rows(Caption, captions) if not staged.form_problem(row.text)}

    def messages(ids: Sequence[str]) -> list[Message]:
        requests = [
            staged.judging_request(
                _question(questions[sample_id], instruction), truth[sample_id], staged.stated(texts[sample_id])
            )
            for sample_id in ids
        ]
        return [{"role": "user", "content": request} for request in requests]

    replies = request_all("judge", teacher, list(texts), messages, *_sampling(seed, attempt))
    failed = failed_requests("judge", replies)
    check_nothing_lost("judge", len(texts), len(texts) - len(failed), len(failed), FAILED, unit="requests")
    rows, counts = [], Counter[str]()
    for sample_id, reply in replies.items():
        if isinstance(reply, EndpointError):
            continue
        valid = staged.judged_valid(reply)
        counts[{True: "valid", False: "invalid", None: "unclear"}[valid]] += 1
        reason = staged.ACCEPTED if valid else "judge"
        rows.append(Verdict(sample_id, attempt, texts[sample_id], staged.stated(texts[sample_id]), bool(valid), reason))
    return JudgeResult(
        judged=lake.publish(Verdict, rows),
        quarantine=lake.publish(Quarantined, failed),
        counters={reason: float(count) for reason, count in counts.items()},
    )


@stage()
def reasonings(rollouts: Table[Rollout]) -> ReasoningsResult:
    """The REASONING of every staged answer as an answer by itself.

    What SWIRES rewards is a stage's text, without tags and without the other stages, and its cutoff is measured on rewards of
    reasonings (appendix D); so that is what has to be scored. An answer without stages stays whole, as the search takes it.
    """
    rows = [
        replace(
            row,
            rollout_id=f"{row.rollout_id}-reasoning",
            decode=f"{row.decode}-reasoning",
            text=_reasoning(row.text),
        )
        for row in lake.read_rows(Rollout, rollouts)
    ]
    return ReasoningsResult(lake.publish(Rollout, rows))


def _reasoning(text: str) -> str:
    """Its content; empty where the answer has other stages, but not this one."""
    if not staged.is_tagged(text):
        return text
    return content(text, "REASONING") if opening("REASONING") in text else ""


def _question(sample: Sample, instruction: str) -> str:
    return sample.prompt.removesuffix(f" {instruction}") if instruction else sample.prompt


def _answers(answers: Table[Answer], questions: Sequence[Sample]) -> dict[str, str]:
    """Sample id -> true answer; every question needs one."""
    truth = {row.sample_id: row.answer for row in lake.read_rows(Answer, answers)}
    missing = sum(sample.sample_id not in truth for sample in questions)
    if missing:
        raise StageInputError(
            f"{missing} of {len(questions)} questions have no answer, and a teacher is shown one; complete the file of "
            "questions.train, or let the policy teach itself (staged.teacher.kind=self)"
        )
    return truth
