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
from tasks.core.seeds import digest_of, seed_for
from tasks.stage.config import NOT_SEMANTIC
from tasks.stage.progress import progress
from tasks.stage.quarantine import StageInputError, check_nothing_lost
from tasks.stage.results import StageResult
from tasks.stage.stage import stage

log = logging.getLogger(__name__)

PLACEHOLDER = "<image>"  # LLaVA's; the policy's chat template has its own


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


class _Exchange(NamedTuple):
    """The first question and answer of a line, and how many came after it."""

    image: str
    prompt: str
    answer: str
    later: int


def replay_count(share: float, captions: int) -> int:
    """Examples to replay beside `captions`, so that `share` of all of them are replayed."""
    return round(share / (1 - share) * captions)


def draw_replayed(replay: Replay, count: int, seed: int) -> list[Caption]:
    """`count` of the material's captions by seed, none twice; all there are if that is fewer, with a warning.

    Raises:
        StageInputError: none holds a text.
    """
    rows = [row for row in lake.read_rows(Caption, replay.captions) if row.text.strip()]
    if count and not rows:
        raise StageInputError(
            f"{replay.captions}: no answer to replay among {replay.captions.rows} rows; check finetune.replay.source"
        )
    if count > len(rows):
        log.warning("%d examples were to be replayed, the material has %d: all are used", count, len(rows))
    rows.sort(key=lambda row: seed_for("replay", seed, row.sample_id))
    return rows[:count]


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
    images = {parsed.image for _, parsed in _lines(path) if isinstance(parsed, _Exchange)}
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

    A line gives its first exchange; later ones depend on it and are counted, not learned. What can't be used is refused with a
    reason and another line is used instead; only images of lines that were drawn are read. Limits of images and of the share
    of refused lines are those of `config`. Counters: lines in the file, later exchanges.

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
    later = 0
    with progress("replay", min(count, len(lines)), unit="examples") as advance:
        for number, parsed in lines:
            if len(samples) >= count:
                break
            exchange = _with_image(path, parsed, images, config) if isinstance(parsed, _Exchange) else parsed
            if isinstance(exchange, _Refused):
                refused.append(Quarantined("read_replay", f"line {number}", exchange.reason, exchange.detail))
                continue
            sample_id = digest_of("replay", source.name, number, exchange.image, exchange.prompt)
            samples.append(Sample(sample_id, exchange.image, exchange.prompt, "train"))
            captions.append(Caption(sample_id, exchange.image, "", "replay", exchange.answer, 1, "given", 0, 0))
            later += exchange.later
            advance(1)
    looked_at = len(samples) + len(refused)
    check_nothing_lost("read_replay", looked_at, len(samples), len(refused), config.max_quarantined, unit="lines")
    used = {sample.image_id for sample in samples}
    return ReplayResult(
        images=lake.publish(Image, [row for name, row in images.items() if name in used and isinstance(row, Image)]),
        samples=lake.publish(Sample, samples),
        captions=lake.publish(Caption, captions),
        quarantine=lake.publish(Quarantined, refused),
        counters={"lines": len(lines), "later_exchanges": later},
    )


def _with_image(
    path: Path, exchange: _Exchange, images: dict[str, Image | Quarantined], config: SampleConfig
) -> _Exchange | _Refused:
    """The exchange if its image can be read, which is added to `images`, each once."""
    name = exchange.image
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
    return exchange if isinstance(row, Image) else _Refused(row.reason, row.detail)


def _lines(path: Path) -> Iterator[tuple[int, _Exchange | _Refused]]:
    """(line number from 1, its exchange or why it is refused) of a file; blank lines are skipped."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, _parse(line)


def _parse(line: bytes) -> _Exchange | _Refused:
    """The first exchange of one line."""
    try:
        row: Any = json.loads(line)
    except ValueError as error:
        return _Refused("not_json", str(error)[:200])
    if not isinstance(row, Mapping):
        return _Refused("not_json", f"a {type(row).__name__}, an object was needed")
    image, turns = row.get("image"), row.get("conversations")
    if not isinstance(image, str) or not image:
        return _Refused("no_image", f"image is {image!r:.80}, a path was needed")
    messages = [_turn(turn) for turn in turns] if isinstance(turns, list) else []
    if len(messages) < 2 or [who for who, _ in messages[:2]] != ["human", "gpt"]:
        return _Refused("no_exchange", "conversations must begin with one of human and one of gpt, each with a value")
    (_, prompt), (_, answer) = messages[:2]
    if prompt.count(PLACEHOLDER) > 1:
        return _Refused("several_images", f"{prompt.count(PLACEHOLDER)} places for images, one can be replayed")
    prompt = prompt.replace(PLACEHOLDER, "").strip()
    if not prompt or not answer.strip():
        return _Refused("empty", "no question" if not prompt else "no answer")
    return _Exchange(image, prompt, answer.strip(), len(messages) // 2 - 1)


def _turn(turn: Any) -> tuple[str, str]:
    """(who, what) of a turn; empty strings for what is not there."""
    who, what = (turn.get("from"), turn.get("value")) if isinstance(turn, Mapping) else (None, None)
    return (who, what) if isinstance(who, str) and isinstance(what, str) else ("", "")
