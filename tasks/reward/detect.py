"""Detect: which of COCO's 80 kinds of objects are in the run's images, by a detector's table or by the scorer itself.

The detections go into a table by image id, for people, and into a folder by the images' pixels, for the rewards `objects`
and `completeness`. No annotation is read: a table holds a detector's results, not the truth.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from storage import lake
from storage.artifacts import ScorerCheckpoint, Table
from storage.schema import Detection, Image
from tasks.configs.reward import DetectedObjects
from tasks.core.benchmarks.coco_words import SYNONYMS
from tasks.core.models.object_list import pixel_digest
from tasks.models.loading import load_images
from tasks.models.zero_shot import IMAGES_TOGETHER, KINDS, Confidences, Picture, publish_objects, zero_shot
from tasks.stage.progress import progress
from tasks.stage.quarantine import StageInputError
from tasks.stage.results import StageResult
from tasks.stage.stage import stage


@dataclass(frozen=True)
class DetectResult(StageResult):
    """Which objects are in images."""

    detections: Table[Detection]
    objects: ScorerCheckpoint  # the same by the images' pixels: the reward `objects`
    completeness: ScorerCheckpoint  # and the reward `completeness`
    cosine_threshold: float | None = None  # between absent and present, zero-shot


def detect(reward: DetectedObjects, scorer: ScorerCheckpoint, images: list[Table[Image]]) -> DetectResult:
    """Find the objects of images: the stage `find_objects`, which is given the content of the user's table and not its path.

    Args:
        reward: the table, or none, and the least confidence.
        scorer: an image-text model; used where there is no table.
        images: all image tables that the reward will score: the round's, and the benchmark's.

    Raises:
        StageInputError: as `read_detections` and `find_objects`.
    """
    table = lake.publish(Detection, read_detections(Path(reward.table))) if reward.table else None
    return find_objects(reward.threshold, table, scorer, images)


@stage()
def find_objects(
    threshold: float, table: Table[Detection] | None, scorer: ScorerCheckpoint, images: list[Table[Image]]
) -> DetectResult:
    """Objects of confidence `threshold` or more.

    With a table: its rows. An image without any row in it has no list; images that are the same to the last pixel share theirs.

    Without: zero-shot. The cosine of an image with `a photo of a KIND.` for each of the 80 kinds; the threshold between absent
    and present is that of least error over all of these cosines (`minimum_error`; Otsu's would part the absent ones, for an
    image holds three kinds of 80). Confidence is 0.5 there, 0 at the mean of the cosines below it and less, 1 at the mean of
    those above and more, linear between. So `threshold` 0.5 takes what is likelier there than not.

    Raises:
        StageInputError: the table has none of the images; the cosines don't form two groups; the scorer isn't open_clip's.
    """
    cosine_threshold = None
    if table is None:
        digests, confidences, cosine_threshold = zero_shot(_pictures(images), scorer)
    else:
        digests, confidences = _listed(images, table)
    rows = [
        Detection(image_id, name, confidence)
        for image_id in digests
        for name, confidence in confidences.get(image_id, {}).items()
        if confidence >= threshold
    ]
    lists: dict[str, set[str]] = {digests[image_id]: set() for image_id in digests if image_id in confidences}
    for row in rows:
        lists[digests[row.image_id]].add(row.object)
    return DetectResult(
        detections=lake.publish(Detection, rows),
        objects=publish_objects("objects", lists),
        completeness=publish_objects("completeness", lists),
        cosine_threshold=cosine_threshold,
        counters={
            "images": len(digests),
            "images_without_detections": sum(image_id not in confidences for image_id in digests),
        },
    )


def _listed(images: Sequence[Table[Image]], table: Table[Detection]) -> tuple[dict[str, str], Confidences]:
    """(pixel digest of every image, what the table holds of it)."""
    digests = {image_id: pixel_digest(picture) for image_id, picture in _pictures(images)}
    confidences: Confidences = {}
    for row in lake.read_rows(Detection, table, keys=set(digests)):
        confidences.setdefault(row.image_id, {})[row.object] = row.confidence
    if not confidences:
        theirs = sorted(set(lake.read(table, columns=["image_id"]).column(0).to_pylist()))
        raise StageInputError(
            f"the detector's table has none of the run's {len(digests)} images: its ids are like {theirs[:3]}, "
            f"the images' like {sorted(digests)[:3]}"
        )
    return digests, confidences


def _pictures(images: Sequence[Table[Image]]) -> Iterator[Picture]:
    """(id, decoded image), each id once."""
    known: set[str] = set()
    total = sum(table.rows or 0 for table in images)
    with progress("detect", total, unit="images") as advance:
        for table in images:
            ids = lake.read(table, columns=["image_id"]).column(0).to_pylist()
            for start in range(0, len(ids), IMAGES_TOGETHER):
                part = ids[start : start + IMAGES_TOGETHER]
                new = [image_id for image_id in part if image_id not in known]
                known.update(new)
                yield from load_images(table, new).items()
                advance(len(part))


def read_detections(path: Path) -> list[Detection]:
    """A detector's table: image_id, object (COCO's name, in any case) and confidence (1 if there is no such column).

    Of several rows of one kind in an image, several instances, the surest counts.

    Raises:
        StageInputError: no such file, neither Parquet nor CSV, a missing column, an unknown object, no number.
    """
    table = _read_table(path)
    rows = table.to_pylist()
    unknown = {str(row["object"]) for row in rows} - set(KINDS)
    renamed = {name: name.strip().lower() for name in unknown}
    strange = sorted(name for name in unknown if renamed[name] not in SYNONYMS)
    if strange:
        shown = [f"{name!r} (nearest: {', '.join(_nearest(name)) or 'none'})" for name in strange[:5]]
        raise StageInputError(
            f"{path}: {len(strange)} objects are none of COCO's 80: {'; '.join(shown)}; rename or remove them"
        )
    surest: dict[tuple[str, str], float] = {}
    for number, row in enumerate(rows, start=1):
        confidence = row.get("confidence", 1.0)
        if row["image_id"] is None or not isinstance(confidence, (int, float)) or not math.isfinite(confidence):
            raise StageInputError(f"{path}, row {number}: {row}; want an image_id and a finite confidence")
        name = str(row["object"])
        key = str(row["image_id"]), renamed.get(name, name)
        surest[key] = max(surest.get(key, -math.inf), float(confidence))
    return [Detection(image_id, name, confidence) for (image_id, name), confidence in surest.items()]


def _nearest(name: str) -> list[str]:
    """COCO's names that a name may mean: by its synonyms, else by its letters."""
    meant = [kind for kind, words in SYNONYMS.items() if name.strip().lower() in map(str.strip, words.split(","))]
    return meant or difflib.get_close_matches(name.strip().lower(), KINDS, n=3)


def _read_table(path: Path) -> pa.Table:
    from pyarrow import csv

    if not path.is_file():
        raise StageInputError(f"{path}: no such file; scorer.rewards names it as an objects reward's table")
    try:
        if path.suffix.lower() == ".csv":
            # An id is text, though it may look like a number: 000000000139.
            table = csv.read_csv(path, convert_options=csv.ConvertOptions(column_types={"image_id": pa.string()}))
        else:
            table = pq.read_table(path, partitioning=None)
    except (pa.ArrowException, OSError) as error:
        raise StageInputError(f"{path}: neither Parquet nor CSV that can be read ({error})") from error
    missing = {"image_id", "object"} - set(table.column_names)
    if missing:
        raise StageInputError(
            f"{path} has columns {table.column_names}, {sorted(missing)} are missing: want image_id, object, confidence"
        )
    return table.select([name for name in ("image_id", "object", "confidence") if name in table.column_names])
