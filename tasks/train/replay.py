"""Other material among what a policy learns, so that what it is not trained for is not lost (rehearsal).

Replayed material is three tables, as a round's own: images, samples (their prompts) and captions (the answers).
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from storage import lake
from storage.artifacts import Table, canonical_json
from storage.images import read_image_file
from storage.schema import Caption, Image, Quarantined, Sample
from tasks.configs.data import SampleConfig
from tasks.core.data.conversations import ConversationError, exchanges_of
from tasks.core.seeds import digest_of, seed_for
from tasks.stage.config import NOT_SEMANTIC
from tasks.stage.progress import progress
from tasks.stage.quarantine import StageInputError, check_nothing_lost
from tasks.stage.results import StageResult
from tasks.stage.stage import stage
from tasks.train.conversations import conversations

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Replay:
    """Material to replay: each caption's sample and image are in the other two tables."""

    images: Table[Image]
    samples: Table[Sample]
    captions: Table[Caption]


class OpenReplay(BaseModel):
    """A file of conversations that is there; `fingerprint` changes when it or an image that it names does."""

    model_config = ConfigDict(frozen=True)
    path: str = Field(json_schema_extra=NOT_SEMANTIC)
    name: str
    fingerprint: str


class _Refused(NamedTuple):
    """Why a line can't be replayed."""

    reason: str
    detail: str


class _Conversation(NamedTuple):
    """A line's questions and answers about its image."""

    image: str
    turns: tuple[tuple[str, str], ...]


def replay_count(share: float, captions: int) -> int:
    """Examples to replay beside `captions`, so that `share` of all of them are replayed."""
    return round(share / (1 - share) * captions)


def draw_replayed(replay: Replay, count: int, seed: int) -> list[list[Caption]]:
    """The captions of `count` of the material's conversations (most have one) by seed, none twice.

    All there are if that is fewer, with a warning.

    Raises:
        StageInputError: none holds a text.
    """
    rows = [row for row in lake.read_rows(Caption, replay.captions) if row.text.strip()]
    if count and not rows:
        raise StageInputError(
            f"{replay.captions}: no answer to replay among {replay.captions.rows} rows; check finetune.replay.source"
        )
    whole = conversations(lake.read_rows(Sample, replay.samples), rows)
    if count > len(whole):
        log.warning("%d examples were to be replayed, the material has %d: all are used", count, len(whole))
    whole.sort(key=lambda turns: seed_for("replay", seed, turns[0].sample_id))
    return whole[:count]


def open_replay(source: str) -> OpenReplay:
    """Find a JSON Lines file in LLaVA's form; images are looked up relative to its folder.

    Raises:
        StageInputError: no such file, or nothing in it.
    """
    path = Path(source).expanduser().resolve()
    if not path.is_file():
        raise StageInputError(
            f"{path}: no such file to replay; finetune.replay.source is self, or a JSON Lines file whose lines are "
            '{"image": path, "conversations": [{"from": "human", "value": ...}, {"from": "gpt", "value": ...}]}'
        )
    whole = hashlib.sha256(path.read_bytes()).hexdigest()
    images = {parsed.image for _, parsed in _lines(path) if isinstance(parsed, _Conversation)}
    described = []
    for name in sorted(images):
        file = path.parent / name
        if file.is_file():
            described.append((name, file.stat().st_size, file.stat().st_mtime_ns))
    fingerprint = hashlib.sha256(canonical_json([whole, described]).encode()).hexdigest()
    return OpenReplay(path=str(path), name=f"file {path.name}", fingerprint=fingerprint)


@dataclass(frozen=True)
class ReplayResult(StageResult):
    """Examples of a file, and lines that were refused."""

    images: Table[Image]
    samples: Table[Sample]
    captions: Table[Caption]
    quarantine: Table[Quarantined]


@stage()
def read_replay(config: SampleConfig, source: OpenReplay, *, count: int, seed: int) -> ReplayResult:
    """`count` examples of a file by seed.

    A line is a conversation, learned whole: each exchange is a sample that follows the one before. What can't be used is
    refused with a reason and another line is used instead; only images of lines that were drawn are read. Limits of images and
    of the share of refused lines are those of `config`. Counters: lines in the file, later exchanges.

    Raises:
        StageInputError: the file has no line.
        TooManyQuarantined: more lines were refused than `config` allows.
    """
    path = Path(source.path)
    lines = sorted(_lines(path), key=lambda line: seed_for("replay", seed, line[0]))
    if not lines:
        raise StageInputError(f"{path}: an empty file, nothing to replay")
    images: dict[str, Image | Quarantined] = {}
    samples: list[Sample] = []
    captions: list[Caption] = []
    refused: list[Quarantined] = []
    examples = 0
    with progress("replay", min(count, len(lines)), unit="examples") as advance:
        for number, parsed in lines:
            if examples >= count:
                break
            talk = _with_image(path, parsed, images, config) if isinstance(parsed, _Conversation) else parsed
            if isinstance(talk, _Refused):
                refused.append(Quarantined("read_replay", f"line {number}", talk.reason, talk.detail))
                continue
            before = None
            for turn, (prompt, answer) in enumerate(talk.turns):
                place = (number, turn) if turn else (number,)
                sample_id = digest_of("replay", source.name, *place, talk.image, prompt)
                samples.append(Sample(sample_id, talk.image, prompt, "train", before))
                captions.append(Caption(sample_id, talk.image, "", "replay", answer, 1, "given", 0, 0))
                before = sample_id
            examples += 1
            advance(1)
    looked_at = examples + len(refused)
    check_nothing_lost("read_replay", looked_at, examples, len(refused), config.max_quarantined, unit="lines")
    used = {sample.image_id for sample in samples}
    return ReplayResult(
        images=lake.publish(Image, [row for name, row in images.items() if name in used and isinstance(row, Image)]),
        samples=lake.publish(Sample, samples),
        captions=lake.publish(Caption, captions),
        quarantine=lake.publish(Quarantined, refused),
        counters={"lines": len(lines), "later_exchanges": len(samples) - examples},
    )


def _with_image(
    path: Path, talk: _Conversation, images: dict[str, Image | Quarantined], config: SampleConfig
) -> _Conversation | _Refused:
    """The conversation if its image can be read, which is added to `images`, each once."""
    name = talk.image
    if name not in images:
        file = path.parent / name
        if not file.is_file():
            return _Refused("no_file", f"{name}: no such file in {path.parent.name}")
        read = read_image_file(
            file,
            image_id=name,
            source=f"file {path.name}",
            split="train",
            min_side=config.min_side,
            max_megapixels=config.max_megapixels,
        )
        images[name] = read if isinstance(read, Image) else replace(read, stage="read_replay")
    row = images[name]
    return talk if isinstance(row, Image) else _Refused(row.reason, row.detail)


def _lines(path: Path) -> Iterator[tuple[int, _Conversation | _Refused]]:
    """(line number from 1, its conversation or why it is refused) of a file; blank lines are skipped."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, _parse(line)


def _parse(line: bytes) -> _Conversation | _Refused:
    """The conversation of one line."""
    try:
        row: Any = json.loads(line)
    except ValueError as error:
        return _Refused("not_json", str(error)[:200])
    if not isinstance(row, Mapping):
        return _Refused("not_json", f"a {type(row).__name__}, an object was needed")
    image = row.get("image")
    if not isinstance(image, str) or not image:
        return _Refused("no_image", f"image is {image!r:.80}, a path was needed")
    try:
        turns = exchanges_of(row.get("conversations"))
    except ConversationError as error:
        return _Refused(error.reason, str(error))
    return _Conversation(image, tuple(turns))
