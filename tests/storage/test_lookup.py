"""One row at a time: whatever a table holds, reading one image holds no more than its group."""

from __future__ import annotations

import random
import tracemalloc

import numpy as np
import PIL.Image
import pyarrow.parquet as pq
import pytest

from storage import lake
from storage.lookup import Lookup
from storage.objects import ArtifactMissing
from storage.schema import Image, ImageFile


def row(name: str, data: bytes) -> Image:
    return Image(name, ImageFile(bytes=data, path=f"{name}.png"), 8, 8, "0" * 64, "test", "train")


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def test_a_row_is_what_a_whole_read_gives() -> None:
    rows = [row(f"{i:03d}", noise(i, 50)) for i in range(250)]
    table = lake.publish(Image, rows)
    there = Lookup(Image, table)
    assert len(there) == 250
    assert list(there) == [each.image_id for each in rows]
    assert [there[key] for key in ("249", "000", "100")] == [rows[249], rows[0], rows[100]]
    assert list(Lookup(Image, table, {"007"})) == ["007"]


def test_a_key_or_file_that_is_not_there_is_an_error() -> None:
    table = lake.publish(Image, [row("a", b"1")])
    with pytest.raises(KeyError, match="lacks 1 of 2 rows"):
        Lookup(Image, table, {"a", "b"})
    table.path.unlink()
    with pytest.raises(ArtifactMissing, match="visloop run"):
        Lookup(Image, table)


def test_groups_hold_few_large_images_and_a_hundred_small_ones() -> None:
    def groups(size: int, count: int) -> list[int]:
        table = lake.publish(Image, [row(f"{i:03d}", noise(i, size)) for i in range(count)])
        file = pq.ParquetFile(table.path).metadata
        return [file.row_group(i).num_rows for i in range(file.num_row_groups)]

    assert groups(10, 250) == [100, 100, 50]
    assert groups(6 * 2**20, 7) == [2, 2, 2, 1]
    assert groups(20 * 2**20, 3) == [1, 1, 1], "larger than a group may be: alone"


def test_memory_does_not_grow_with_the_number_of_images() -> None:
    def peak(count: int) -> int:
        there = Lookup(Image, lake.publish(Image, [row(f"{i:03d}", noise(i, 4 * 2**20)) for i in range(count)]))
        tracemalloc.start()
        for key in there:
            assert len(there[key].image.bytes or b"") == 4 * 2**20
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(24) < 1.2 * peak(6)


def test_the_bytes_that_are_decoded_are_the_original_ones(tmp_path) -> None:
    path = tmp_path / "a.jpg"
    PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype="uint8")).save(path, quality=70)
    table = lake.publish(Image, [row("a", path.read_bytes())])
    assert Lookup(Image, table)["a"].image.bytes == path.read_bytes()
