"""Who else writes and judges staged answers: a model behind an endpoint; and what the policy's own search calibrates on.

The endpoint's stages are apart from the gate, so that a network's failure loses no verdict, and resume: what was answered
before a kill is not asked again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from storage import lake
from storage.artifacts import Table
from storage.schema import Answer, Caption, Image, Quarantined, Rollout, Sample, Verdict
from tasks.configs.staged import EndpointTeacher
from tasks.core.search.stages import STAGES, content, opening
from tasks.core.seeds import seed_for
from tasks.core.staged import answers as staged
from tasks.models.endpoint import Endpoint, EndpointError, Message, image_message
from tasks.models.loading import load_images
from tasks.stage.calls import fault_point, resume_folder
from tasks.stage.progress import progress
from tasks.stage.quarantine import StageInputError, check_nothing_lost
from tasks.stage.results import StageResult
from tasks.stage.stage import stage

FAILED = 0.05  # share of requests that may fail for good before the stage does
AHEAD = 4  # requests prepared, images and all, for each that may be under way
RETRY_TEMPERATURE = 1.0  # of later attempts; the first one is greedy

Replies = dict[str, str | EndpointError]


def attempt_seed(seed: int, attempt: int) -> int:
    """The seed of an attempt (0-based): the run's own first, then others."""
    return seed if attempt == 0 else seed_for("attempt", seed, attempt)


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
    asked = lake.read_rows(Sample, samples)
    truth = _answers(answers, asked)
    image_of = {one.sample_id: one for one in asked}

    def messages(ids: Sequence[str]) -> list[Message]:
        pictures = load_images(images, [image_of[one].image_id for one in ids])
        texts = [staged.teaching_request(_question(image_of[one], instruction), truth[one]) for one in ids]
        return [image_message(pictures[image_of[one].image_id], text) for one, text in zip(ids, texts, strict=True)]

    replies = _ask_all("teach", teacher, list(image_of), messages, attempt, seed)
    rows, refused = [], _failed("teach", replies)
    check_nothing_lost("teach", len(asked), len(asked) - len(refused), len(refused), FAILED, unit="requests")
    for one, reply in replies.items():
        if isinstance(reply, EndpointError):
            continue
        text = staged.staged_reply(reply)
        if text is None:
            refused.append(Quarantined("teach", one, "unparsable", f"want four tagged parts, got {reply[:200]!r}"))
            continue
        rows.append(
            Caption(
                sample_id=one,
                image_id=image_of[one].image_id,
                policy=teacher.model,
                strategy=attempt_name("teacher", attempt),
                text=text,
                steps=len(STAGES),
                stop_reason="end",
                candidates=1,
                decode_tokens=0,
            )
        )
    check_nothing_lost("teach", len(asked), len(rows), len(refused), 1.0, unit="questions")
    return TeachResult(
        captions=lake.publish(Caption, rows),
        quarantine=lake.publish(Quarantined, refused),
        counters={"asked": len(asked), "unparsable": sum(one.reason == "unparsable" for one in refused)},
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
    asked = {one.sample_id: one for one in lake.read_rows(Sample, samples)}
    truth = _answers(answers, list(asked.values()))
    said = {row.sample_id: row.text for row in lake.read_rows(Caption, captions) if not staged.form_problem(row.text)}

    def messages(ids: Sequence[str]) -> list[Message]:
        requests = [
            staged.judging_request(_question(asked[one], instruction), truth[one], staged.stated(said[one]))
            for one in ids
        ]
        return [{"role": "user", "content": request} for request in requests]

    replies = _ask_all("judge", teacher, list(said), messages, attempt, seed)
    failed = _failed("judge", replies)
    check_nothing_lost("judge", len(said), len(said) - len(failed), len(failed), FAILED, unit="requests")
    rows, counts = [], Counter[str]()
    for one, reply in replies.items():
        if isinstance(reply, EndpointError):
            continue
        valid = staged.judged_valid(reply)
        counts[{True: "valid", False: "invalid", None: "unclear"}[valid]] += 1
        reason = staged.ACCEPTED if valid else "judge"
        rows.append(Verdict(one, attempt, said[one], staged.stated(said[one]), bool(valid), reason))
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


def _answers(answers: Table[Answer], asked: Sequence[Sample]) -> dict[str, str]:
    """Sample id -> true answer; all that are asked need one."""
    truth = {one.sample_id: one.answer for one in lake.read_rows(Answer, answers)}
    missing = sum(one.sample_id not in truth for one in asked)
    if missing:
        raise StageInputError(
            f"{missing} of {len(asked)} questions have no answer, and a teacher is shown one; complete the file of "
            "questions.train, or let the policy teach itself (staged.teacher.kind=self)"
        )
    return truth


def _failed(name: str, replies: Replies) -> list[Quarantined]:
    return [
        Quarantined(name, one, "endpoint", str(reply)) for one, reply in replies.items() if not isinstance(reply, str)
    ]


def _ask_all(
    name: str,
    teacher: EndpointTeacher,
    ids: Sequence[str],
    messages: Callable[[Sequence[str]], list[Message]],
    attempt: int,
    seed: int,
) -> Replies:
    """The reply to each, some requests at once; what this call of the stage was answered before is not asked again."""
    file = resume_folder() / "answered.jsonl"
    got: Replies = dict(_answered(file))
    todo = [one for one in ids if one not in got]
    endpoint = Endpoint(teacher.url, teacher.model, teacher.key_variable, teacher.timeout, teacher.parallel)
    temperature, drawn = (0.0, None) if attempt == 0 else (RETRY_TEMPERATURE, attempt_seed(seed, attempt) % 2**31)

    def one_reply(message: Message) -> str | EndpointError:
        try:
            return endpoint.chat([message], temperature=temperature, seed=drawn)
        except EndpointError as error:
            return error

    with (
        file.open("a", encoding="utf-8") as kept,
        progress(name, len(ids), unit="answers") as advance,
        ThreadPoolExecutor(teacher.parallel) as pool,
    ):
        advance(len(ids) - len(todo))
        for start in range(0, len(todo), AHEAD * teacher.parallel):
            part = todo[start : start + AHEAD * teacher.parallel]
            for one, reply in zip(part, pool.map(one_reply, messages(part)), strict=True):
                got[one] = reply
                if isinstance(reply, str):
                    kept.write(json.dumps([one, reply]) + "\n")
                    kept.flush()
                advance(1)
            errors = [reply for one in part if isinstance(reply := got[one], EndpointError)]
            if len(errors) == len(part):  # it is not there, or refuses us: the rest would fail, too
                raise errors[0]
            fault_point(name)
    return {one: got[one] for one in ids}


def _answered(file: Path) -> Iterator[tuple[str, str]]:
    """What is kept of an earlier try; a line that a kill cut off is left out."""
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
        try:
            one, reply = json.loads(line)
        except ValueError:
            continue
        yield one, reply
