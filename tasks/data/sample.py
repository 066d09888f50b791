"""Stage 1, sample: which images, under which prompts. Reads image files, and never what is in them."""

from __future__ import annotations

import hashlib
import struct
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import PIL.Image
from pydantic import BaseModel, ConfigDict, Field

from storage import coco, lake
from storage.artifacts import Table, canonical_json, home
from storage.images import read_image_file, scan_folder
from storage.schema import Annotation, Box, Image, Quarantined, Sample
from tasks.configs.data import CocoSource, DemoSource, FolderSource, SampleConfig
from tasks.core.data.sampling import draw_prompt, held_out, round_slice, stratified_order, stratum
from tasks.core.placeholders import strip_placeholders
from tasks.core.seeds import digest_of, seed_for
from tasks.demo.dataset import write_demo_dataset
from tasks.models.handles import PolicyHandle
from tasks.models.loading import image_refusal
from tasks.stage.config import NOT_SEMANTIC
from tasks.stage.progress import progress
from tasks.stage.quarantine import StageInputError, check_nothing_lost
from tasks.stage.results import StageResult
from tasks.stage.stage import stage

Source = DemoSource | CocoSource | FolderSource


class OpenSource(BaseModel):
    """A source whose files are there; `fingerprint` changes when the files do."""

    model_config = ConfigDict(frozen=True)
    root: str = Field(json_schema_extra=NOT_SEMANTIC)
    name: str
    split: str | None
    fingerprint: str


class Draw(BaseModel):
    """Which part of a source is wanted: the round's slice of the training images, or the benchmark's images."""

    model_config = ConfigDict(frozen=True)
    images: int
    seed: int
    round_index: int = 0
    benchmark: bool = False


def open_source(source: Source) -> OpenSource:
    """Find the files; the demo world's are drawn first if need be.

    Raises:
        StageInputError: if there is nothing to read.
    """
    if isinstance(source, DemoSource):
        root = home() / "data" / f"demo-{source.images}-{source.seed}"
        write_demo_dataset(root, source.images, source.seed)
        name = f"demo {source.images} seed {source.seed}"
        return OpenSource(root=str(root), name=f"{name} {source.split}", split=source.split, fingerprint=name)
    root = Path(source.root).expanduser().resolve()
    if isinstance(source, FolderSource):
        files: Iterable[Path] = scan_folder(root) if root.is_dir() else []
        return OpenSource(root=str(root), name=f"folder {root.name}", split=None, fingerprint=_fingerprint(root, files))
    instances = root / "annotations" / f"instances_{source.split}.json"
    if not instances.is_file():
        raise StageInputError(
            f"{root}: no annotations/instances_{source.split}.json, so it is no COCO data set with split {source.split!r}; "
            "check data.train.root and data.train.split, or use kind: folder for a plain folder of images"
        )
    return OpenSource(
        root=str(root), name=f"coco {source.split}", split=source.split, fingerprint=_fingerprint(root, [instances])
    )


def _fingerprint(root: Path, files: Iterable[Path]) -> str:
    """Names, sizes and times of the files: what was drawn from them is hashed itself."""
    described = [(str(path.relative_to(root)), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    if not described:
        raise StageInputError(f"{root}: no images there (jpg, png, gif, webp, bmp, tif); check data.train.root")
    return hashlib.sha256(canonical_json(described).encode()).hexdigest()


class _File(NamedTuple):
    image_id: str
    path: Path
    stratum: str


def _list_files(source: OpenSource) -> list[_File]:
    root = Path(source.root)
    if source.split is not None:
        listed = coco.list_images(root, source.split)
        return [_File(image.image_id, image.path, stratum(image.width, image.height)) for image in listed]
    return [_File(str(path.relative_to(root)), path, _stratum_of_file(path)) for path in scan_folder(root)]


def _stratum_of_file(path: Path) -> str:
    """From the header alone; a file that has none is drawn like any other, and refused with a reason then."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
            with PIL.Image.open(path) as opened:
                return stratum(*opened.size)
    except (OSError, ValueError, SyntaxError, TypeError, LookupError, struct.error, PIL.Image.DecompressionBombError):
        return "unknown"


@dataclass(frozen=True)
class SampleResult(StageResult):
    """Drawn images, each with its prompt, and files that were refused."""

    images: Table[Image]
    samples: Table[Sample]
    quarantine: Table[Quarantined]


@stage()
def sample(config: SampleConfig, source: OpenSource, draw: Draw, policy: PolicyHandle | None = None) -> SampleResult:
    """Draw images and give each its prompt; those that the policy's processor refuses go to quarantine, too."""
    refusal = image_refusal(policy)
    files = {file.image_id: file for file in _list_files(source)}
    order = stratified_order({file.image_id: file.stratum for file in files.values()}, draw.seed)
    # A folder with fewer images is used as a whole in every round; a smaller benchmark would measure something else.
    wanted = draw.images if draw.benchmark else min(draw.images, len(order))
    try:
        drawn = round_slice(order, wanted, draw.round_index)
    except ValueError as error:
        raise StageInputError(f"{source.name}: {error}") from error
    val = set() if draw.benchmark else held_out(drawn, config.val_share, draw.seed)
    images: list[Image] = []
    refused: list[Quarantined] = []
    with progress("sample", len(drawn), unit="images") as advance:
        for image_id in drawn:
            split = "test" if draw.benchmark else "val" if image_id in val else "train"
            row = read_image_file(
                files[image_id].path,
                image_id=image_id,
                source=source.name,
                split=split,
                min_side=config.min_side,
                max_megapixels=config.max_megapixels,
            )
            if isinstance(row, Image) and (problem := refusal(row.width, row.height)):
                row = Quarantined("sample", image_id, "processor", f"{files[image_id].path.name}: {problem}")
            if isinstance(row, Image):
                images.append(row)
            else:
                refused.append(row)
            advance(1)
    check_nothing_lost("sample", len(drawn), len(images), len(refused), config.max_quarantined, unit="images")
    samples = []
    for image in images:
        prompt = strip_placeholders(draw_prompt(config.prompts, draw.seed, image.image_id))
        samples.append(Sample(digest_of(source.name, image.image_id, prompt), image.image_id, prompt, image.split))
    return SampleResult(
        images=lake.publish(Image, images),
        samples=lake.publish(Sample, samples),
        quarantine=lake.publish(Quarantined, refused),
        counters={"files": len(files), "drawn": len(drawn)},
    )


@dataclass(frozen=True)
class PartResult(StageResult):
    """Some of a table of samples."""

    part: Table[Sample]


@stage()
def take(samples: Table[Sample], *, count: int, seed: int) -> PartResult:
    """`count` of the samples, or all if there are fewer, by seed."""
    rows = sorted(lake.read_rows(Sample, samples), key=lambda row: seed_for("take", seed, row.sample_id))
    return PartResult(lake.publish(Sample, rows[:count]))


@dataclass(frozen=True)
class AnnotationsResult(StageResult):
    """What is truly in images; only evaluation can read it."""

    annotations: Table[Annotation]


@stage(reads_annotations=True)
def annotate(source: OpenSource, images: Table[Image]) -> AnnotationsResult:
    """Read the annotations of these images."""
    ids = lake.read(images, columns=["image_id"])["image_id"].to_pylist()
    if source.split is None:
        raise StageInputError(f"{source.name} has no annotations; set data.benchmark to a demo or COCO data set")
    rows = [
        Annotation(row.image_id, row.objects, row.captions, [Box(**box) for box in row.boxes])
        for row in coco.read_annotations(Path(source.root), source.split, ids)
    ]
    return AnnotationsResult(lake.publish(Annotation, rows))
