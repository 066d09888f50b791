"""Checkpoint folders: a manifest of file digests, whose own digest is the folder's name.

A folder written by a stage lies in the store; any other stays where it is, and a pointer file holds its path.
The same files have the same digest either way.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TypedDict

from storage import objects
from storage.objects import ArtifactDamaged, ArtifactMissing

_MANIFEST, _POINTER = ".manifest.json", ".pointer.json"


class Entry(TypedDict):
    """One file of a folder."""

    sha256: str
    size: int


Manifest = dict[str, Entry]


def files_of(folder: Path) -> list[Path]:
    """The files that belong to a checkpoint, sorted.

    Not its model card (`*.md`), which states when and with what it was trained and may be edited later; and nothing
    hidden (.git, .cache).
    """
    files = []
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden and path.suffix != ".md":
            files.append(path)
    return files


def describe(folder: Path, *, use_cache: bool) -> Manifest:
    """Hash a folder file by file; `use_cache`: a file that did not change since it was last hashed is not hashed again."""
    digest = objects.cached_digest if use_cache else objects.file_digest
    return {
        path.relative_to(folder).as_posix(): Entry(sha256=digest(path), size=path.stat().st_size)
        for path in files_of(folder)
    }


def encode(manifest: Manifest) -> tuple[bytes, str]:
    """The manifest's canonical bytes and their digest."""
    text = json.dumps({"files": manifest}, sort_keys=True, separators=(",", ":")).encode()
    return text, hashlib.sha256(text).hexdigest()


def keep(manifest: Manifest) -> str:
    """Write the manifest down; returns its digest."""
    text, digest = encode(manifest)
    objects.write_atomically(objects.object_path(digest, _MANIFEST), text)
    return digest


def point(digest: str, folder: Path) -> None:
    """Note where a folder lies that stays outside the store."""
    note = json.dumps({"folder": str(folder.absolute())}).encode()
    objects.write_atomically(objects.object_path(digest, _POINTER), note)


def locate(digest: str) -> Path:
    """The folder: in the store, or where the pointer says; its path in the store if there is neither."""
    inside = objects.object_path(digest, "")
    pointer = objects.object_path(digest, _POINTER)
    if not inside.exists() and pointer.exists():
        return Path(json.loads(pointer.read_text())["folder"])
    return inside


def load(digest: str) -> Manifest:
    """The manifest of that digest.

    Raises:
        ArtifactMissing: there is none.
        ArtifactDamaged: its content does not match the digest.
    """
    path = objects.object_path(digest, _MANIFEST)
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise ArtifactMissing(f"{path} is gone") from None
    if hashlib.sha256(text).hexdigest() != digest:
        raise ArtifactDamaged(f"{path} does not match the digest in its name")
    manifest: Manifest = json.loads(text)["files"]
    return manifest


def check_folder(digest: str, *, full: bool) -> None:
    """Make sure that every file of the manifest is there and whole.

    Raises:
        ArtifactMissing: a file is gone.
        ArtifactDamaged: a file's content does not match its digest.
    """
    folder = locate(digest)
    ours = folder == objects.object_path(digest, "")
    for name, entry in load(digest).items():
        path = folder / name
        if ours:
            objects.check_file(path, entry["sha256"], entry["size"], full=full)
            continue
        if not path.is_file():
            raise ArtifactMissing(f"{path} is gone; the checkpoint was used from there")
        digest_now = objects.file_digest(path) if full else objects.cached_digest(path)
        if digest_now != entry["sha256"]:
            raise ArtifactDamaged(f"{path} was changed since it was first used")
