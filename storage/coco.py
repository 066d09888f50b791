"""Reads data sets in COCO's layout, and writes drawn images as such a data set.

    {root}/{split}/*.png                              (or .jpg)
    {root}/annotations/instances_{split}.json
    {root}/annotations/captions_{split}.json          (optional when reading)

Images and annotations are read by different functions on purpose: a stage that must not see annotations calls
`list_images`, which reads none.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL.Image

from storage.coco_categories import CATEGORIES, CATEGORY_IDS

MARKER = "demo_dataset.json"  # written last: parameters and counts of a finished demo data set
ATTRIBUTION = (
    "Scenes drawn with emojis by OpenMoji, the open-source emoji and icon project (https://openmoji.org). "
    "License: CC BY-SA 4.0 (https://creativecommons.org/licenses/by-sa/4.0/)."
)
_INFO = {"description": "visloop demo world", "version": "1", "year": 2026, "url": "https://openmoji.org"}
_LICENSES = [{"id": 1, "name": "CC BY-SA 4.0", "url": "https://creativecommons.org/licenses/by-sa/4.0/"}]


@dataclass(frozen=True, slots=True)
class CocoImage:
    """An image file of a split; nothing about what is in it."""

    image_id: str  # COCO's number, as text
    file_name: str
    path: Path
    width: int  # px
    height: int  # px


@dataclass(frozen=True, slots=True)
class CocoAnnotation:
    """What is truly in an image. For evaluation only."""

    image_id: str
    objects: list[str]  # category names, unique, sorted
    captions: list[str]  # reference captions; empty if the data set has none
    boxes: list[dict[str, Any]]  # category, x, y, w, h in px from the top left corner


def list_images(root: Path, split: str) -> list[CocoImage]:
    """All images of a split, by id. Reads the `images` list only."""
    records = _load(_annotation_file(root, "instances", split))["images"]
    images = [
        CocoImage(str(item["id"]), item["file_name"], root / split / item["file_name"], item["width"], item["height"])
        for item in records
    ]
    return sorted(images, key=lambda image: int(image.image_id))


def read_annotations(root: Path, split: str, image_ids: Collection[str]) -> list[CocoAnnotation]:
    """The annotations of these images, in the order given; an image without objects has empty lists."""
    instances = _load(_annotation_file(root, "instances", split))
    unknown = set(image_ids) - {str(item["id"]) for item in instances["images"]}
    if unknown:
        raise KeyError(f"{len(unknown)} image ids are not in {root}, split {split!r}: {sorted(unknown)[:5]} ...")
    names = {item["id"]: item["name"] for item in instances["categories"]}
    boxes: dict[str, list[dict[str, Any]]] = {image_id: [] for image_id in image_ids}
    for item in instances["annotations"]:
        if str(item["image_id"]) in boxes:
            x, y, w, h = map(float, item["bbox"])
            box = {"category": names[item["category_id"]], "x": x, "y": y, "w": w, "h": h}
            boxes[str(item["image_id"])].append(box)
    captions: dict[str, list[str]] = {image_id: [] for image_id in image_ids}
    captions_file = _annotation_file(root, "captions", split)
    if captions_file.is_file():
        for item in _load(captions_file)["annotations"]:
            if str(item["image_id"]) in captions:
                captions[str(item["image_id"])].append(item["caption"])
    return [
        CocoAnnotation(key, sorted({box["category"] for box in boxes[key]}), captions[key], boxes[key])
        for key in image_ids
    ]


@dataclass(frozen=True, slots=True)
class DrawnImage:
    """An image to write, with its annotations."""

    image: PIL.Image.Image
    boxes: list[tuple[str, tuple[int, int, int, int]]]  # category; left, top, width, height in px
    captions: list[str]  # reference captions


def write_dataset(root: Path, parameters: dict[str, Any], splits: Mapping[str, Iterable[DrawnImage]]) -> bool:
    """Write images with their annotations as a COCO data set, whole or not at all; returns whether anything was written.

    `parameters` say what the data set is: a second call with equal ones does nothing, a call with others
    replaces it. A folder that is no such data set is left alone (FileExistsError).
    """
    marker = root / MARKER
    if marker.is_file() and _load(marker) == parameters:
        return False
    if root.exists() and any(root.iterdir()) and not marker.is_file():
        raise FileExistsError(f"{root} holds files that are no demo data set; give another folder")
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}-", ignore_cleanup_errors=True) as folder:
        fresh = Path(folder) / "new"
        first_id = 1
        for split, drawn in splits.items():
            first_id += _write_split(fresh, split, drawn, first_id)
        (fresh / "LICENSE.txt").write_text(ATTRIBUTION + "\n", encoding="utf-8")
        _dump(fresh / MARKER, parameters)
        if root.exists():
            root.rename(Path(folder) / "old")
        fresh.rename(root)
    return True


def _write_split(root: Path, split: str, drawn: Iterable[DrawnImage], first_id: int) -> int:
    """Write one split's files and return how many images it has."""
    (root / split).mkdir(parents=True)
    records: list[dict[str, Any]] = []
    instances: list[dict[str, Any]] = []
    captions: list[dict[str, Any]] = []
    for image_id, item in enumerate(drawn, start=first_id):
        file_name = f"{image_id:012d}.png"
        item.image.save(root / split / file_name, optimize=False, compress_level=6)
        width, height = item.image.size
        records.append({"id": image_id, "file_name": file_name, "width": width, "height": height, "license": 1})
        for category, box in item.boxes:
            instances.append(_instance(first_id * 10 + len(instances), image_id, category, box))
        for text in item.captions:
            captions.append({"id": first_id * 10 + len(captions), "image_id": image_id, "caption": text})
    head = {"info": {**_INFO, "attribution": ATTRIBUTION}, "licenses": _LICENSES, "images": records}
    _dump(_annotation_file(root, "instances", split), {**head, "categories": CATEGORIES, "annotations": instances})
    _dump(_annotation_file(root, "captions", split), {**head, "annotations": captions})
    return len(records)


def _instance(number: int, image_id: int, category: str, box: Iterable[int]) -> dict[str, Any]:
    """An instance record; the polygon is the box's outline."""
    x, y, w, h = box
    return {
        "id": number,
        "image_id": image_id,
        "category_id": CATEGORY_IDS[category],
        "bbox": [x, y, w, h],
        "area": w * h,
        "iscrowd": 0,
        "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
    }


def _annotation_file(root: Path, kind: str, split: str) -> Path:
    return root / "annotations" / f"{kind}_{split}.json"


def _load(path: Path) -> Any:
    with path.open(encoding="utf-8") as file:
        return json.load(file)


def _dump(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8", newline="\n")
