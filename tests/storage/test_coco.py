"""The demo data set is a COCO data set: pycocotools reads it, and so does our reader."""

from __future__ import annotations

import contextlib
import hashlib
import io
from pathlib import Path

import pytest
from PIL import Image
from pycocotools.coco import COCO

from storage.coco import list_images, read_annotations
from storage.coco_categories import CATEGORIES
from tasks.core.demo.glyphs import GLYPHS
from tasks.demo.dataset import split_sizes, write_demo_dataset

SIZES = {"train": 14, "val": 2, "test": 4}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "demo"
    assert write_demo_dataset(folder, images=20, seed=7) == SIZES
    return folder


def digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def coco(root: Path, kind: str, split: str) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(root / "annotations" / f"{kind}_{split}.json"))


def test_coco_has_eighty_categories_with_its_own_ids_and_every_glyph_is_one_of_them() -> None:
    assert len(CATEGORIES) == 80
    assert len({record["id"] for record in CATEGORIES}) == 80
    assert CATEGORIES[-1] == {"id": 90, "name": "toothbrush", "supercategory": "indoor"}
    assert set(GLYPHS) <= {record["name"] for record in CATEGORIES}


def test_pycocotools_reads_every_split_and_its_masks_fit_the_boxes(root: Path) -> None:
    for split, count in SIZES.items():
        instances = coco(root, "instances", split)
        assert len(instances.getImgIds()) == count
        for annotation in instances.loadAnns(instances.getAnnIds()):
            assert instances.annToMask(annotation).sum() == annotation["area"]
        captions = coco(root, "captions", split)
        assert all(len(captions.getAnnIds(imgIds=[image])) == 5 for image in captions.getImgIds())


def test_reader_lists_files_that_exist_with_the_size_they_have(root: Path) -> None:
    for image in list_images(root, "train"):
        with Image.open(image.path) as picture:
            assert picture.size == (image.width, image.height) == (96, 96)


def test_annotations_come_in_the_given_order_and_references_name_only_what_is_there(root: Path) -> None:
    wanted = [image.image_id for image in list_images(root, "train")][::-1][:5]
    annotations = read_annotations(root, "train", wanted)
    assert [item.image_id for item in annotations] == wanted
    for item in annotations:
        assert item.objects == sorted({box["category"] for box in item.boxes})
        assert len(item.captions) == 5
        assert all(name in caption for caption in item.captions for name in item.objects)


def test_unknown_image_ids_are_an_error(root: Path) -> None:
    with pytest.raises(KeyError, match="999"):
        read_annotations(root, "train", ["999"])


def test_no_image_id_and_no_scene_is_in_two_splits(root: Path) -> None:
    seen_ids: set[str] = set()
    seen_scenes: set[tuple[tuple[str, float, float], ...]] = set()
    for split, count in SIZES.items():
        ids = [image.image_id for image in list_images(root, split)]
        scenes = {
            tuple(sorted((box["category"], box["x"] // 32, box["y"] // 32) for box in item.boxes))
            for item in read_annotations(root, split, ids)
        }
        assert len(scenes) == count
        assert not seen_ids & set(ids)
        assert not seen_scenes & scenes
        seen_ids |= set(ids)
        seen_scenes |= scenes


def test_same_parameters_give_the_same_bytes_and_another_seed_gives_others(root: Path, tmp_path: Path) -> None:
    write_demo_dataset(tmp_path / "again", images=20, seed=7)
    assert digests(tmp_path / "again") == digests(root)
    write_demo_dataset(tmp_path / "other", images=20, seed=8)
    assert digests(tmp_path / "other") != digests(root)


def test_second_call_writes_nothing_and_other_parameters_replace(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    write_demo_dataset(folder, images=10, seed=1)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert write_demo_dataset(folder, images=10, seed=1) == {"train": 7, "val": 1, "test": 2}
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    sizes = write_demo_dataset(folder, images=6, seed=1, splits={"train": 1, "test": 5})
    assert sizes == {"train": 1, "test": 5}
    assert len(list_images(folder, "test")) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="no demo data set"):
        write_demo_dataset(tmp_path, images=10, seed=1)
    assert (tmp_path / "precious.txt").read_text() == "mine"


def test_split_sizes_add_up_and_refuse_what_does_not() -> None:
    assert sum(split_sizes(1003).values()) == 1003
    with pytest.raises(ValueError, match="not 10"):
        split_sizes(10, {"train": 3, "test": 3})
