"""What kind of scorer a folder holds, and whether its files are whole; read from the files alone, no model library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from tasks.core.models.weight_files import CheckpointError, WeightFileError, check_weight_files

OPEN_CLIP_CONFIG, TRANSFORMERS_CONFIG = "open_clip_config.json", "config.json"
MODEL_TYPES = ("clip", "siglip", "siglip2")  # of transformers
NEEDED = (
    f"Needed: a folder with {OPEN_CLIP_CONFIG} and open_clip_model.safetensors, or one of transformers with "
    f"{TRANSFORMERS_CONFIG} of model_type {', '.join(MODEL_TYPES[:-1])} or {MODEL_TYPES[-1]}; hf-hub:ORG/NAME of either; or "
    "NAME/PRETRAINED (see open_clip.list_pretrained())"
)
_STEMS = (
    "open_clip_model",
    "open_clip_pytorch_model",
    "model",
)  # of weights, in the order that open_clip looks for them


class ScorerError(CheckpointError):
    """A checkpoint that can't be used as a scorer."""


def scorer_format(folder: Path) -> Literal["open_clip", "transformers"]:
    """The library that loads a folder; open_clip where it holds both configurations.

    Raises:
        ScorerError: neither, or a model of transformers that is no CLIP and no SigLIP.
    """
    if (folder / OPEN_CLIP_CONFIG).is_file():
        return "open_clip"
    file = folder / TRANSFORMERS_CONFIG
    if not file.is_file():
        raise ScorerError(f"{folder}: it has neither {OPEN_CLIP_CONFIG} nor {TRANSFORMERS_CONFIG}. {NEEDED}")
    try:
        kind = json.loads(file.read_bytes()).get("model_type")
    except (ValueError, AttributeError):
        raise ScorerError(f"{file} is no configuration: its JSON can't be read. {NEEDED}") from None
    if kind not in MODEL_TYPES:
        raise ScorerError(f"{folder}: its model_type is {kind!r}, and no image-text scorer. {NEEDED}")
    return "transformers"


def check_scorer_files(folder: Path) -> None:
    """Check a scorer's folder before anything is paid for.

    Raises:
        ScorerError: it holds no scorer, or a weights file that is none.
    """
    try:
        if scorer_format(folder) == "transformers":
            check_weight_files(folder)
        else:
            present = [stem for stem in _STEMS if (folder / f"{stem}.safetensors").exists()]
            check_weight_files(folder, (present or list(_STEMS))[0])
    except WeightFileError as error:
        raise ScorerError(f"{folder}: not a scorer that can be loaded ({error})") from error
