"""What is wrong with a policy's folder, in a line: its kind, its files, its weights. The first two before it is loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.core.models.generation_fields import check_generation
from tasks.core.models.weight_files import CheckpointError, WeightFileError, check_weight_files

_ENCODER_DECODER = "it reads its prompt in an encoder of its own, and an answer can't be continued in one cache"
_QUERIES = (
    "a separate model (Q-Former) turns image and prompt into queries, so no prompt can be changed behind an image"
)
UNSUPPORTED: Mapping[str, str] = {
    "florence2": _ENCODER_DECODER,
    "blip-2": _QUERIES,
    "instructblip": _QUERIES,
    "instructblipvideo": _QUERIES,
    "llama4": "its layers attend in chunks, which forked caches don't",
    "paligemma": "every token of its prompt attends to later ones, and it was trained for single tasks, without a chat",
}
"""Model types that load and would give wrong answers, each with the reason."""
INSTEAD = "use a decoder that chats, such as Qwen2.5-VL, LLaVA-NeXT or SmolVLM2 (docs/models.md)"

_NAMED = 2  # weights that a message lists


class PolicyError(CheckpointError):
    """A checkpoint that can't be used as a policy."""


def check_folder(folder: str | Path) -> None:
    """Check what a folder's settings tell; a hub id is not looked at.

    Raises:
        PolicyError: an adapter without its base, an architecture that isn't supported, generation settings that can't be
            honoured.
    """
    path = Path(folder)
    if not path.is_dir():
        return
    if (path / "adapter_config.json").exists():
        base = _read(path / "adapter_config.json").get("base_model_name_or_path") or "its base"
        raise PolicyError(
            f"{folder}: an adapter, not a whole model; merge it into {base} (peft: merge_and_unload) and save the result"
        )
    check_kind(folder, _read(path / "config.json"))
    try:
        check_generation(_read(path / "generation_config.json"))
    except ValueError as error:
        raise PolicyError(f"{folder}: {error}") from None


def check_weights(folder: str | Path) -> None:
    """Check a folder's weights files without loading them; a hub id is not looked at.

    Raises:
        PolicyError: a file is none, or not whole.
    """
    if Path(folder).is_dir():
        try:
            check_weight_files(Path(folder))
        except WeightFileError as error:
            raise PolicyError(f"{folder}: not a vision-language checkpoint: {error}") from None


def check_kind(name: str | Path, config: Mapping[str, Any]) -> None:
    """Refuse an architecture by its configuration.

    Raises:
        PolicyError: with the reason.
    """
    kind = str(config.get("model_type", ""))
    text = config.get("text_config") or {}
    if kind == "paligemma" and isinstance(text, Mapping) and text.get("model_type") == "gemma2":
        kind = "paligemma2"
    why = UNSUPPORTED.get(kind) or (_ENCODER_DECODER if config.get("is_encoder_decoder") else None)
    if why is not None:
        raise PolicyError(f"{name}: {kind} is not supported: {why}; {INSTEAD}")


def check_loaded(folder: str | Path, info: Mapping[str, Any]) -> None:
    """Refuse a model some of whose weights were not in the files, or files that hold more than the model has.

    Args:
        folder: the checkpoint.
        info: what `from_pretrained` tells with `output_loading_info`; weights that are tied or may be absent are not in it.

    Raises:
        PolicyError: how many weights of which kind, the first names, and what to do.
    """
    wrong = []
    shapes = [key[0] if isinstance(key, tuple) else key for key in info["mismatched_keys"]]
    for single, several, keys in (
        ("is missing", "are missing", info["missing_keys"]),
        ("of another shape", "of another shape", shapes),
        ("left over", "left over", info["unexpected_keys"]),
    ):
        if keys:
            names = sorted(keys)
            what = f"1 weight {single}" if len(names) == 1 else f"{len(names)} weights {several}"
            wrong.append(f"{what}: {', '.join(names[:_NAMED])}" + (", ..." if len(names) > _NAMED else ""))
    if wrong:
        raise PolicyError(
            f"{folder}: {'; '.join(wrong)}; its config.json and its weights don't belong together, or the download is not "
            "whole: download it again, or save model and weights from one object"
        )


def _read(file: Path) -> dict[str, Any]:
    """A JSON object; empty where the file is absent or holds something else, which its loader reports."""
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
