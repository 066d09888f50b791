"""Objects of images, zero-shot by an image-text model, and the folder by pixels that the rewards on them read."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import islice

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq

from storage.artifacts import ScorerCheckpoint
from tasks.core.benchmarks.coco_words import SYNONYMS
from tasks.core.models.object_list import pixel_digest
from tasks.core.models.scorer_files import ScorerError
from tasks.core.models.token_clip import phrase_of
from tasks.core.reward.shaping import minimum_error
from tasks.models.object_lists import OBJECTS
from tasks.models.scorers import described, load_scorer, publish_scorer
from tasks.stage.quarantine import StageInputError

KINDS = tuple(SYNONYMS)  # COCO's names
IMAGES_TOGETHER = 256  # decoded together
Picture = tuple[str, PIL.Image.Image]  # its id, decoded
Confidences = dict[str, dict[str, float]]  # image id -> object -> confidence


def publish_objects(kind: str, lists: dict[str, set[str]]) -> ScorerCheckpoint:
    """A reward of this kind by the objects of each image, by pixel digest."""
    return publish_scorer({**described(kind, {}, {}), OBJECTS: _parquet(lists)})


def objects_of(pictures: Iterator[Picture], scorer: ScorerCheckpoint) -> ScorerCheckpoint:
    """Completeness by what the scorer sees in these pictures: as without a table, at confidence 0.5, by them alone.

    Raises:
        StageInputError: as `find_objects`.
    """
    digests, confidences, _ = zero_shot(pictures, scorer)
    lists = {digests[name]: {kind for kind, sure in confidences[name].items() if sure >= 0.5} for name in digests}
    return publish_objects("completeness", lists)


def zero_shot(pictures: Iterator[Picture], scorer: ScorerCheckpoint) -> tuple[dict[str, str], Confidences, float]:
    """(pixel digest of every image, confidence of every kind in it, the threshold's cosine)."""
    digests, cosines = {}, {}
    for image_id, picture, row in _seen(pictures, scorer):
        digests[image_id], cosines[image_id] = pixel_digest(picture), row
    try:
        parted = minimum_error(np.concatenate(list(cosines.values())) if cosines else [])
    except ValueError as error:
        raise StageInputError(
            f"{len(cosines)} images' cosines with {len(KINDS)} kinds of objects don't part into present and absent ({error}); "
            "use more images, another scorer, or a detector's table"
        ) from error
    scale = [parted.low, parted.threshold, parted.high]
    confidences = {
        image_id: dict(zip(KINDS, np.interp(row, scale, [0.0, 0.5, 1.0]).tolist(), strict=True))
        for image_id, row in cosines.items()
    }
    return digests, confidences, parted.threshold


def _seen(pictures: Iterator[Picture], scorer: ScorerCheckpoint) -> Iterator[tuple[str, PIL.Image.Image, np.ndarray]]:
    """(id, decoded image, its cosines with the 80 kinds [80])."""
    try:
        model = load_scorer(scorer)
    except ScorerError as error:
        raise StageInputError(
            f"objects are detected zero-shot by an image-text model, and the scorer is none; name a detector's table ({error})"
        ) from error
    kinds = model.embed_texts([phrase_of(name) for name in KINDS]).astype(np.float64)
    while part := list(islice(pictures, IMAGES_TOGETHER)):
        vectors = model.embed_images([picture for _, picture in part]).astype(np.float64)
        for (image_id, picture), vector in zip(part, vectors, strict=True):
            yield image_id, picture, kinds @ vector


def _parquet(lists: dict[str, set[str]]) -> bytes:
    """Objects by pixel digest, sorted."""
    table = pa.table(
        {"pixels": sorted(lists), "objects": [sorted(lists[pixels]) for pixels in sorted(lists)]},
        schema=pa.schema([("pixels", pa.string()), ("objects", pa.list_(pa.string()))]),
    )
    file = io.BytesIO()
    pq.write_table(table, file, compression="zstd")
    return file.getvalue()
