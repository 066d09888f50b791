"""The demo world as a COCO-format data set on disk: scenes of the generator, written by the store."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from pathlib import Path

from storage.coco import DrawnImage, write_dataset

SHARES: dict[str, float] = {"train": 0.7, "val": 0.1, "test": 0.2}

Signature = tuple[tuple[str, int], ...]


def split_sizes(images: int, splits: Mapping[str, int] | None = None) -> dict[str, int]:
    """How many images each split gets: as given, or by SHARES with what rounding leaves going to the first."""
    if splits is not None:
        if sum(splits.values()) != images:
            raise ValueError(f"the splits {dict(splits)} hold {sum(splits.values())} images, not {images}")
        return dict(splits)
    sizes = {split: int(images * share) for split, share in SHARES.items()}
    sizes["train"] += images - sum(sizes.values())
    return sizes


def write_demo_dataset(root: Path, images: int, seed: int, splits: Mapping[str, int] | None = None) -> dict[str, int]:
    """Write `images` scenes of the demo world as a COCO data set and return the number of images a split.

    The same (images, seed, splits) give the same files everywhere; no two images, whatever their splits, show the same
    scene. A second call with the same parameters does nothing; one with others replaces the data set. A folder that
    is no demo data set is left alone.
    """
    sizes = split_sizes(images, splits)
    taken: set[Signature] = set()  # shared by the splits, which are drawn in turn
    drawn = {split: _scenes(f"{seed} {split}", count, taken) for split, count in sizes.items()}
    write_dataset(root, {"images": images, "seed": seed, "splits": sizes, "version": 1}, drawn)
    return sizes


def _scenes(seed: str, count: int, taken: set[Signature]) -> Iterator[DrawnImage]:
    """`count` scenes that are not in `taken` (they are added), drawn one by one."""
    from tasks.core.demo.captions import reference_captions
    from tasks.core.demo.scenes import draw_scene, sample_scenes

    rng = random.Random(f"references {seed}")
    for scene in sample_scenes(f"scenes {seed}", count, taken):
        boxes = [(item.category, (item.left, item.top, item.width, item.height)) for item in scene.objects]
        yield DrawnImage(draw_scene(scene), boxes, reference_captions(rng, scene))
