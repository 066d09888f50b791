"""Folders with the objects that were detected in images, and the rewards that read them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tasks.core.models.object_list import Completeness
    from tasks.core.models.sentence_scores import Scores

OBJECTS = "objects.parquet"  # columns pixels (digest of an image's pixels), objects (list)


def load_objects(folder: Path, options: Any, refs: Any, counters: Counter[str]) -> Scores:
    """The reward `objects` of a folder."""
    from tasks.core.models.object_list import object_scores

    return object_scores(object_lists(folder), counters)


def load_completeness(folder: Path, options: Any, refs: Any, counters: Counter[str]) -> Completeness:
    """The reward `completeness` of a folder."""
    from tasks.core.models.object_list import Completeness

    return Completeness(object_lists(folder), counters)


def object_lists(folder: Path) -> dict[str, frozenset[str]]:
    """The objects of each image, by the digest of its pixels (`tasks.core.models.object_list.pixel_digest`)."""
    import pyarrow.parquet as pq

    rows = pq.read_table(folder / OBJECTS, partitioning=None).to_pylist()
    return {row["pixels"]: frozenset(row["objects"]) for row in rows}
