"""`policy.max_pixels`: the largest image that a processor makes, set where its kind of image processor has such a limit.

Fewer pixels are fewer tokens: the image is resized before it is cut into patches.
"""

from __future__ import annotations

import math
from typing import Any


def limit_pixels(processor: Any, config: Any, max_pixels: int | None) -> None:
    """Limit the images of a processor, in place; None leaves it as it is.

    Limits by area (Qwen-VL and relatives), by the longest edge (Idefics3, SmolVLM, Pixtral: a square of that edge has at most
    so many pixels), by the grid of tiles (LLaVA-NeXT, LLaVA-OneVision: also in `config`, by which the model reads them), and
    by the number of tiles (InternVL).

    Raises:
        ValueError: the processor resizes every image alike, or its smallest image is larger.
    """
    if max_pixels is None:
        return
    images = processor.image_processor
    kind, size = type(images).__name__, getattr(images, "size", None)
    edges = dict(size) if size is not None else {}
    if getattr(images, "image_grid_pinpoints", None):
        _limit_grid(images, config, max_pixels)
    elif (
        getattr(images, "max_patches", None) and getattr(processor.image_processor, "crop_to_patches", None) is not None
    ):
        tile = int(edges["height"]) * int(edges["width"])
        images.max_patches = max(1, _at_least(kind, max_pixels, tile) // tile)
        images.min_patches = min(images.min_patches, images.max_patches)
    elif hasattr(images, "merge_size") and edges.get("longest_edge") and edges.get("shortest_edge"):
        unit = (int(images.patch_size) * int(images.merge_size)) ** 2
        edges["longest_edge"] = _at_least(kind, max_pixels, unit)
        edges["shortest_edge"] = min(int(edges["shortest_edge"]), max_pixels)
        images.size = type(size)(**_given(edges)) if size is not None else edges
    elif set(_given(edges)) == {"longest_edge"}:
        unit = _step(images)
        edge = math.isqrt(_at_least(kind, max_pixels, unit * unit)) // unit * unit
        images.size = type(size)(longest_edge=min(edge, int(edges["longest_edge"]))) if size is not None else edges
    else:
        raise ValueError(
            f"policy.max_pixels: {kind} resizes every image alike, so it has no such setting; set it to null"
        )


def _given(edges: dict[str, Any]) -> dict[str, int]:
    return {name: int(value) for name, value in edges.items() if value is not None}


def _step(images: Any) -> int:
    """What an image's longest edge is a multiple of: a tile's edge, or a patch's."""
    tile = getattr(images, "max_image_size", None)
    if tile is not None:
        return int(dict(tile)["longest_edge"])
    patch = getattr(images, "patch_size", 1)
    return int(patch if isinstance(patch, int) else next(iter(dict(patch).values())))


def _limit_grid(images: Any, config: Any, max_pixels: int) -> None:
    fitting = [list(cell) for cell in images.image_grid_pinpoints if cell[0] * cell[1] <= max_pixels]
    if not fitting:
        _at_least(type(images).__name__, max_pixels, min(a * b for a, b in images.image_grid_pinpoints))
    images.image_grid_pinpoints = config.image_grid_pinpoints = fitting


def _at_least(kind: str, max_pixels: int, least: int) -> int:
    if max_pixels < least:
        raise ValueError(f"policy.max_pixels is {max_pixels}: the smallest image of {kind} has {least} pixels")
    return max_pixels
