"""Whether a checkpoint's weight files are what they are named, read from their headers before a library loads them.

A git-lfs pointer, a download that was cut and a page saved in place of a file all look like weights in a folder's listing. The
libraries answer with their own parser's error, or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

POINTER = b"version https://git-lfs"
_LENGTH = 8  # bytes of the header's length, little-endian, at the start of a safetensors file
_LONGEST_HEADER = 100_000_000  # bytes, the format's own limit
_PICKLES = (".bin", ".pt", ".pth")
_NAMED = 3  # tensors or files that a message lists


class CheckpointError(ValueError):
    """A checkpoint that can't be used as it is."""


class WeightFileError(CheckpointError):
    """A weights file that is missing, cut, or something else."""


def check_weight_files(folder: Path, stem: str = "model") -> None:
    """Check the files of a folder that a model is loaded from; nothing is loaded.

    Args:
        folder: the checkpoint.
        stem: name of the safetensors file, or of its index, without its ending: `model` (transformers), `open_clip_model`.

    Raises:
        WeightFileError: in one line, which file, what is wrong with it, and what to do.
    """
    whole, index = folder / f"{stem}.safetensors", folder / f"{stem}.safetensors.index.json"
    if not whole.exists() and (index.exists() or index.is_symlink()):
        _check_shards(index)
        return
    files = [whole] if whole.exists() or whole.is_symlink() else sorted(_others(folder))
    if not files:
        raise WeightFileError(
            f"{folder}: no weights file ({whole.name}, or its shards and {index.name}); {_again(whole)}"
        )
    for file in files:
        tensor_bytes(file)


def tensor_bytes(file: Path) -> dict[str, int]:
    """Bytes of each tensor in a safetensors file, from its header; empty for a file of another format.

    Raises:
        WeightFileError: the file is a git-lfs pointer, or not of the size that its header states, or no safetensors file.
    """
    if not file.is_file():
        raise WeightFileError(f"{file} is missing; {_again(file)}")
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(_LENGTH)
        if (start + stream.read(len(POINTER) - _LENGTH)).startswith(POINTER):
            raise WeightFileError(
                f"{file} is a git-lfs pointer of {size} bytes in place of the weights; run `git lfs pull` in {file.parent}"
            )
        if file.suffix in _PICKLES and size:
            return {}
        length = int.from_bytes(start, "little")
        if size < _LENGTH or length > _LONGEST_HEADER:
            raise WeightFileError(
                f"{file} is no safetensors file ({size} bytes, starts with {start!r}); {_again(file)}"
            )
        if size < _LENGTH + length:
            raise WeightFileError(
                f"{file} is cut: its header takes {length} bytes, the file has {size}; {_again(file)}"
            )
        stream.seek(_LENGTH)
        tensors = _parsed(file, stream.read(length))
    needed = _LENGTH + length + max((end for _, end in tensors.values()), default=0)
    if size != needed:
        what = "is cut" if size < needed else "is too long"
        raise WeightFileError(f"{file} {what}: {size} bytes, its header states {needed}; {_again(file)}")
    return {name: end - start for name, (start, end) in tensors.items()}


def _parsed(file: Path, header: bytes) -> dict[str, tuple[int, int]]:
    """Where each tensor starts and ends, in bytes after the header."""
    try:
        content: dict[str, Any] = json.loads(header)
        entries = {name: entry["data_offsets"] for name, entry in content.items() if name != "__metadata__"}
        return {name: (int(start), int(end)) for name, (start, end) in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise WeightFileError(f"{file} is no safetensors file: its header can't be read; {_again(file)}") from None


def _check_shards(index: Path) -> None:
    """Every shard that the index names is whole, and holds the tensors that the index places there."""
    tensor_bytes_of: dict[str, dict[str, int]] = {}
    try:
        content = index.read_bytes()
        if content.startswith(POINTER):
            raise WeightFileError(f"{index} is a git-lfs pointer; run `git lfs pull` in {index.parent}")
        places: dict[str, str] = dict(json.loads(content)["weight_map"])
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        raise WeightFileError(f"{index} is no index of shards; {_again(index)}") from None
    absent = [name for name in dict.fromkeys(places.values()) if not (index.parent / name).is_file()]
    if absent:
        shards = len(set(places.values()))
        raise WeightFileError(
            f"{index.parent}: {len(absent)} of {shards} shards are missing: {_listed(absent)}; {_again(index)}"
        )
    for shard in dict.fromkeys(places.values()):
        tensor_bytes_of[shard] = tensor_bytes(index.parent / shard)
    lost = [name for name, shard in places.items() if name not in tensor_bytes_of[shard]]
    if lost:
        raise WeightFileError(
            f"{index}: its shards lack {len(lost)} tensors that it lists: {_listed(lost)}; {_again(index)}"
        )


def _others(folder: Path) -> Iterator[Path]:
    """What a library falls back to: other safetensors files, else pickles."""
    tensors = list(folder.glob("*.safetensors"))
    yield from tensors or [path for path in folder.iterdir() if path.suffix in _PICKLES and "model" in path.name]


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")


def _again(file: Path) -> str:
    return f"download {file.parent} again, with its large files"
