"""Model folders as artifacts: published by a stage, or imported from a folder or the Hugging Face hub."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from storage import manifests, objects
from storage.artifacts import KIND_OF, ArtifactRef, Checkpoint
from storage.objects import ArtifactError

C = TypeVar("C", bound=Checkpoint)


class CheckpointNotFound(ArtifactError):
    """Neither a folder nor a repository of that name is available."""


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """An empty folder on the store's disk to write a checkpoint into; deleted afterwards unless it was published."""
    folder = objects.temporary_path()
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _ref(kind: type[C], digest: str, manifest: manifests.Manifest) -> C:
    return kind.of(digest, sum(entry["size"] for entry in manifest.values()))


def _check_files(kind: type[Checkpoint], folder: Path) -> None:
    if not manifests.files_of(folder):
        raise CheckpointNotFound(f"{folder} holds no files: nothing to keep as {KIND_OF[kind]}")


def publish_folder(kind: type[C], folder: Path) -> C:
    """Move a finished folder into the store; it is gone from where it was.

    Args:
        kind: the class of its reference, for example PolicyCheckpoint.
        folder: what `save_pretrained` wrote; a model card comes along but is not part of the identity.

    Raises:
        CheckpointNotFound: the folder is empty.
    """
    _check_files(kind, folder)
    inside = objects.temporary_path()
    shutil.move(folder, inside)
    for path in manifests.files_of(inside):
        objects.flush(path)
    manifest = manifests.describe(inside, use_cache=False)
    for name in manifest:
        objects.seal(inside / name)
    with objects.using_store():
        _, digest = manifests.encode(manifest)
        objects.install_folder(inside, digest)
        manifests.keep(manifest)  # last: without its manifest the artifact does not exist
    return _ref(kind, digest, manifest)


def import_checkpoint(kind: type[C], source: str, root: Path | None = None) -> C:
    """Reference a model outside the store: it is hashed once and not copied.

    Args:
        kind: the class of its reference, for example PolicyCheckpoint.
        source: a folder (relative to `root`, or to the current folder), or a hub id such as `org/name` or
            `org/name@revision`.
        root: where relative folders start.

    Raises:
        CheckpointNotFound: neither a folder nor an available repository.
    """
    folder = (root or Path.cwd()) / Path(source).expanduser()
    if not folder.is_dir():
        folder = _hub_snapshot(source)
    _check_files(kind, folder)
    with objects.using_store():
        manifest = manifests.describe(folder, use_cache=True)
        digest = manifests.keep(manifest)
        manifests.point(digest, folder)
    return _ref(kind, digest, manifest)


def _hub_snapshot(source: str) -> Path:
    """The cached snapshot of a hub repository; downloaded if it is not cached."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name, _, revision = source.partition("@")
    try:
        try:
            return Path(snapshot_download(name, revision=revision or None, local_files_only=True))
        except LocalEntryNotFoundError:
            return Path(snapshot_download(name, revision=revision or None))
    except HFValidationError:
        raise CheckpointNotFound(f"{source}: no such folder, and not the id of a hub repository") from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointNotFound(
            f"{source}: no such folder, not in the hub's cache, and not available from the hub "
            f"({type(error).__name__}); fetch it with: hf download {name}"
        ) from error


def folder(ref: ArtifactRef) -> Path:
    """The checkpoint's folder, to load from; never write into it.

    Raises:
        TypeError: the reference is a table's.
    """
    if ref.is_table:
        raise TypeError(f"{ref}: a table has no folder; read it with storage.lake")
    return ref.path
