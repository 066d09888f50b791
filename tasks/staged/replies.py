"""Requests to the endpoint that writes or judges staged answers: several at once, and resumable."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from storage.schema import Quarantined
from tasks.configs.staged import EndpointTeacher
from tasks.models.endpoint import Endpoint, EndpointError, Message
from tasks.stage.calls import fault_point, resume_folder
from tasks.stage.progress import progress

AHEAD = 4  # requests prepared, images and all, for each that may be under way

Replies = dict[str, str | EndpointError]


def failed_requests(name: str, replies: Replies) -> list[Quarantined]:
    """Requests that failed for good."""
    return [
        Quarantined(name, sample_id, "endpoint", str(reply))
        for sample_id, reply in replies.items()
        if not isinstance(reply, str)
    ]


def request_all(
    name: str,
    teacher: EndpointTeacher,
    ids: Sequence[str],
    messages: Callable[[Sequence[str]], list[Message]],
    temperature: float,
    seed: int | None,
) -> Replies:
    """The reply to each, some requests at once; replies that this call already received are not requested again.

    Args:
        name: the stage's.
        teacher: the endpoint.
        ids: what the replies belong to.
        messages: one message for each of some ids.
        temperature: of the replies.
        seed: sent with the requests; None: none is sent.

    Raises:
        EndpointError: nothing of a whole batch of requests was answered.
    """
    file = resume_folder() / "answered.jsonl"
    replies: Replies = dict(_earlier_replies(file))
    todo = [sample_id for sample_id in ids if sample_id not in replies]
    endpoint = Endpoint(teacher.url, teacher.model, teacher.key_variable, teacher.timeout, teacher.parallel)

    def reply_to(message: Message) -> str | EndpointError:
        try:
            return endpoint.chat([message], temperature=temperature, seed=seed)
        except EndpointError as error:
            return error

    with (
        file.open("a", encoding="utf-8") as finished,
        progress(name, len(ids), unit="answers") as advance,
        ThreadPoolExecutor(teacher.parallel) as pool,
    ):
        advance(len(ids) - len(todo))
        for start in range(0, len(todo), AHEAD * teacher.parallel):
            part = todo[start : start + AHEAD * teacher.parallel]
            for sample_id, reply in zip(part, pool.map(reply_to, messages(part)), strict=True):
                replies[sample_id] = reply
                if isinstance(reply, str):
                    finished.write(json.dumps([sample_id, reply]) + "\n")
                    finished.flush()
                advance(1)
            errors = [reply for sample_id in part if isinstance(reply := replies[sample_id], EndpointError)]
            if len(errors) == len(part):  # it is not there, or refuses us: the rest would fail, too
                raise errors[0]
            fault_point(name)
    return {sample_id: replies[sample_id] for sample_id in ids}


def _earlier_replies(file: Path) -> Iterator[tuple[str, str]]:
    """Replies written by an earlier try; a line that a kill cut off is left out."""
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
        try:
            sample_id, reply = json.loads(line)
        except ValueError:
            continue
        yield sample_id, reply
