"""Which of the demo's models are in a folder, and how each was trained."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from storage import objects

FILE = "built.json"  # beside the models: name -> recipe


def models_of(seed: int) -> Path:
    """Where a seed's models are in the store."""
    return objects.home() / "demo-models" / f"seed-{seed}"


def is_built(folder: Path, name: str, recipe: Mapping[str, Any]) -> bool:
    """Whether the model is there and was trained by this recipe; one that nothing is known of is not."""
    return (folder / name).is_dir() and _recipes(folder).get(name) == recipe


def note_built(folder: Path, name: str, recipe: Mapping[str, Any]) -> None:
    """Write down how a model was trained, once it is there."""
    recipes = _recipes(folder) | {name: dict(recipe)}
    (folder / FILE).write_text(json.dumps(recipes, indent=1) + "\n", encoding="utf-8")


def _recipes(folder: Path) -> dict[str, Any]:
    path = folder / FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
