"""Checkpoint folders: the same files have the same digest, ours or not; hashed once."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from storage import checkpoints, objects
from storage.artifacts import PolicyCheckpoint, ValueCheckpoint
from storage.checkpoints import CheckpointNotFound
from storage.lake import publish
from storage.objects import ArtifactDamaged, ArtifactMissing
from storage.schema import Sample

pytestmark = pytest.mark.usefixtures("home")


def write(folder: Path, weights: bytes = b"weights") -> Path:
    (folder / "tokenizer").mkdir(parents=True)
    (folder / ".cache").mkdir()
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "tokenizer" / "vocab.json").write_text("{}")
    (folder / ".cache" / "junk").write_text(str(time.time()))
    return folder


def age(folder: Path) -> None:
    """As if written an hour ago: what is hashed within two seconds of being written is not remembered."""
    for path in folder.rglob("*"):
        os.utime(path, (time.time() - 3600,) * 2)


def test_a_folder_has_one_digest_whether_published_or_imported(tmp_path: Path) -> None:
    imported = checkpoints.import_checkpoint(PolicyCheckpoint, str(write(tmp_path / "a")))
    assert checkpoints.folder(imported) == tmp_path / "a"
    with checkpoints.scratch_folder() as folder:
        published = checkpoints.publish_folder(PolicyCheckpoint, write(folder / "x"))
    assert published == imported
    assert checkpoints.folder(published) != tmp_path / "a"
    assert not folder.exists()
    assert sorted(p.name for p in checkpoints.folder(published).rglob("*") if p.is_file()) == [
        "junk",
        "model.safetensors",
        "vocab.json",
    ]
    published.verify()
    published.verify(full=True)


def test_other_weights_are_another_digest(tmp_path: Path) -> None:
    refs = [checkpoints.import_checkpoint(PolicyCheckpoint, str(write(tmp_path / w, w.encode()))) for w in ("a", "b")]
    assert refs[0].digest != refs[1].digest


def test_a_model_card_is_not_the_model(tmp_path: Path) -> None:
    first = checkpoints.import_checkpoint(PolicyCheckpoint, str(write(tmp_path / "a")))
    (tmp_path / "a" / "README.md").write_text("A model.")
    assert checkpoints.import_checkpoint(PolicyCheckpoint, "a", tmp_path) == first


def test_a_big_folder_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    age(write(tmp_path / "a"))
    first = checkpoints.import_checkpoint(PolicyCheckpoint, "a", tmp_path)

    def refuse(path: Path) -> str:
        raise AssertionError(f"{path} is hashed again")

    monkeypatch.setattr(objects, "file_digest", refuse)
    assert checkpoints.import_checkpoint(PolicyCheckpoint, "a", tmp_path) == first
    first.verify()


def test_a_changed_or_missing_file_of_an_imported_folder_is_noticed(tmp_path: Path) -> None:
    age(write(tmp_path / "a"))
    ref = checkpoints.import_checkpoint(ValueCheckpoint, "a", tmp_path)
    (tmp_path / "a/model.safetensors").write_bytes(b"WEIGHTS")
    with pytest.raises(ArtifactDamaged, match="changed since it was first used"):
        ref.verify()
    (tmp_path / "a/model.safetensors").unlink()
    with pytest.raises(ArtifactMissing, match="used from there"):
        ref.verify()


def test_a_damaged_published_folder_is_noticed_and_replaced(tmp_path: Path) -> None:
    ref = checkpoints.publish_folder(PolicyCheckpoint, write(tmp_path / "a"))
    weights = checkpoints.folder(ref) / "model.safetensors"
    weights.unlink()
    with pytest.raises(ArtifactMissing):
        ref.verify()
    assert checkpoints.publish_folder(PolicyCheckpoint, write(tmp_path / "a")) == ref
    ref.verify(full=True)


def test_what_can_not_be_had_says_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointNotFound, match="holds no files"):
        checkpoints.import_checkpoint(PolicyCheckpoint, "empty", tmp_path)
    with pytest.raises(CheckpointNotFound, match="no such folder"):
        checkpoints.import_checkpoint(PolicyCheckpoint, "/no/such/folder")
    with pytest.raises(CheckpointNotFound, match="hf download nobody/nothing"):
        checkpoints.import_checkpoint(PolicyCheckpoint, "nobody/nothing")
    with pytest.raises(TypeError, match=r"read it with storage\.lake"):
        checkpoints.folder(publish(Sample, []))
