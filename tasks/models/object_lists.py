"""The object lists that the stage `find_objects` publishes, read back."""

from __future__ import annotations

from pathlib import Path

OBJECTS = "objects.parquet"  # columns pixels (digest of an image's pixels) and objects (list)


def object_lists(folder: Path) -> dict[str, frozenset[str]]:
    """The objects of each image, by the digest of its pixels (`tasks.core.models.object_list.pixel_digest`)."""
    import pyarrow.parquet as pq

    rows = pq.read_table(folder / OBJECTS, partitioning=None).to_pylist()
    return {row["pixels"]: frozenset(row["objects"]) for row in rows}
