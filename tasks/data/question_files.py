"""Files of questions: JSON Lines, each line a question about an image or a conversation as LLaVA's data sets have them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from storage.schema import Quarantined
from tasks.configs.staged import QuestionConfig
from tasks.core.data.conversations import ConversationError, exchanges_of
from tasks.core.placeholders import strip_placeholders
from tasks.core.search.stages import conclusion
from tasks.stage.quarantine import StageInputError, check_nothing_lost

FILE_KIND = "file"
BAD_LINES = 0.05  # share of a file's lines that may be no question


class PlannedQuestion(NamedTuple):
    """A question with its true answer (None: the file has none) and its kind."""

    text: str
    answer: str | None
    kind: str
    after: str | None = None  # the question before in the same conversation


def questions_digest(config: QuestionConfig, *, benchmark: bool) -> str:
    """Digest of the file that questions come from, for `ask`: other content makes new questions. Empty where they are made.

    Raises:
        StageInputError: the file is not there.
    """
    name = config.benchmark if benchmark else config.train
    if not name:
        return ""
    try:
        return hashlib.sha256(Path(name).expanduser().read_bytes()).hexdigest()
    except OSError as error:
        raise StageInputError(
            f"questions.{'benchmark' if benchmark else 'train'}: {name} can't be read ({error.strerror}); give a JSON Lines "
            "file of image_id, question and answer, or leave it empty to have questions made from annotated boxes"
        ) from None


def questions_of_file(
    path: Path, digest: str, wanted: set[str], refused: list[Quarantined]
) -> dict[str, list[PlannedQuestion]]:
    """The file's questions about the wanted images, in its order; other lines go to `refused`."""
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise StageInputError(f"{path} is not the file whose digest was given; pass ask() its questions_digest()")
    questions: dict[str, list[PlannedQuestion]] = {}
    lines = [(number, line) for number, line in enumerate(data.splitlines(), 1) if line.strip()]
    bad = 0
    for number, line in lines:
        parsed = _read_line(line)
        if isinstance(parsed, str):
            bad += 1
            refused.append(Quarantined("ask", f"{path.name}:{number}", "bad_line", parsed))
            continue
        image_id, turns = parsed
        if image_id not in wanted:
            continue
        of_image, before = questions.setdefault(image_id, []), None
        for turn, question in enumerate(turns):
            if any(question.text == other.text for other in of_image):
                line_id = f"{path.name}:{number}" + (f":{turn + 1}" if turn else "")
                refused.append(Quarantined("ask", line_id, "repeated", f"asked before: {question.text}"))
            else:
                of_image.append(question._replace(after=before))
                before = question.text
    check_nothing_lost("ask", len(lines), len(lines) - bad, bad, BAD_LINES, unit="lines")
    return questions


def _read_line(line: bytes) -> tuple[str, list[PlannedQuestion]] | str:
    """(image id, question, or the turns of a conversation) of a line; else what is wrong with it."""
    try:
        item = json.loads(line)
    except ValueError as error:
        return f"no JSON: {error}"
    if not isinstance(item, dict):
        return f"a {type(item).__name__}; wanted an object with image_id, question and answer"
    if "conversations" in item:
        return _read_conversation(item)
    image_id, question, answer = (item.get(name) for name in ("image_id", "question", "answer"))
    question = strip_placeholders(question) if isinstance(question, str) else question
    if not isinstance(image_id, str | int) or not isinstance(question, str) or not question.strip():
        return f"wanted image_id and question, got the fields {', '.join(sorted(item))}"
    if not isinstance(answer, str | int | float | None) or isinstance(answer, bool):
        return f"its answer is a {type(answer).__name__}; wanted a short text"
    text = None if answer is None else str(answer).strip()
    return str(image_id), [PlannedQuestion(question.strip(), text or None, FILE_KIND)]


def _read_conversation(item: Mapping[str, Any]) -> tuple[str, list[PlannedQuestion]] | str:
    """(image id, turns) of a line as LLaVA's data sets have them; of a staged answer the conclusion is the known answer."""
    image_id = item.get("image_id", item.get("image"))
    if not isinstance(image_id, str | int) or isinstance(image_id, bool):
        return f"wanted image (or image_id) and conversations, got the fields {', '.join(sorted(item))}"
    try:
        exchanges = exchanges_of(item["conversations"])
    except ConversationError as error:
        return str(error)
    turns = [
        PlannedQuestion(strip_placeholders(text).strip(), conclusion(answer) or None, FILE_KIND)
        for text, answer in exchanges
    ]
    return (str(image_id), turns) if all(turn.text for turn in turns) else "a question is nothing but placeholders"
