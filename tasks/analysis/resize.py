"""Images at another resolution: the same content in more or fewer pixels, so that the cost of resolution can be measured.

It works with every policy. One whose processor brings all images to one size reads as many image tokens as before.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import math
from dataclasses import dataclass

import PIL.Image

from storage import lake
from storage.artifacts import Table
from storage.images import decode
from storage.schema import Image, ImageFile, Sample
from tasks.stage.quarantine import StageInputError
from tasks.stage.results import StageResult
from tasks.stage.stage import stage


@dataclass(frozen=True)
class ResizedResult(StageResult):
    """The images of some samples, resized, losslessly encoded, under their own ids."""

    images: Table[Image]


@stage()
def resize(images: Table[Image], samples: Table[Sample], *, factor: float) -> ResizedResult:
    """The images of these samples with both sides times `factor` (bicubic), at least one pixel a side.

    Raises:
        StageInputError: a factor that is not above zero.
    """
    if not factor > 0 or not math.isfinite(factor):
        raise StageInputError(f"factor {factor}: want a number above 0")
    wanted = {row.image_id for row in lake.read_rows(Sample, samples)}
    return ResizedResult(
        lake.publish(Image, [_resized(row, factor) for row in lake.read_rows(Image, images, keys=wanted)])
    )


def _resized(row: Image, factor: float) -> Image:
    picture = decode(row.image)
    width, height = (max(1, round(factor * side)) for side in picture.size)
    file = io.BytesIO()
    picture.resize((width, height), PIL.Image.Resampling.BICUBIC).save(file, format="PNG")
    data = file.getvalue()
    return dataclasses.replace(
        row,
        image=ImageFile(bytes=data, path=f"{row.image_id}.png"),
        width=width,
        height=height,
        sha256=hashlib.sha256(data).hexdigest(),
    )
