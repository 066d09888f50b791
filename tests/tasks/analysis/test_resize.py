"""Resized images: the same content in other sizes under the same ids, and only those of the samples."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage import lake
from storage.images import decode
from storage.schema import Image, Sample
from tasks.analysis.resize import resize
from tasks.stage.quarantine import StageInputError
from tests.support.small_world import drawn


def test_sides_change_by_the_factor_and_nothing_but_the_samples_images_is_there(home: Path) -> None:
    world = drawn(benchmark=True)
    samples = lake.publish(Sample, lake.read_rows(Sample, world.samples)[:2])
    before = {row.image_id: row for row in lake.read_rows(Image, world.images)}
    for factor in (0.5, 1.0, 2.0):
        after = lake.read_rows(Image, resize.fn(world.images, samples, factor=factor).images)
        assert {row.image_id for row in after} == {row.image_id for row in lake.read_rows(Sample, samples)}
        for row in after:
            source = before[row.image_id]
            assert (row.width, row.height) == (round(factor * source.width), round(factor * source.height))
            assert decode(row.image).size == (row.width, row.height) and row.source == source.source
            if factor == 1.0:
                assert decode(row.image).tobytes() == decode(source.image).tobytes()


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf")])
def test_a_factor_that_makes_no_image_is_refused(home: Path, factor: float) -> None:
    world = drawn(benchmark=True)
    with pytest.raises(StageInputError, match="want a number above 0"):
        resize.fn(world.images, world.samples, factor=factor)
