"""How many tokens and patches an image costs, by what its processor does with its width and height.

One rule for each way to cut an image up: a fixed square, anyres tiles with and without a cap, tiles of a fixed
size after scaling, tiles for cross-attention, and patches at the image's own resolution.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.core.memory.facts import ImageCost

Size = tuple[int, int]  # width, height in pixels
Config = Mapping[str, Any]

FIXED = ("llava", "vipllava", "gemma3", "gemma3_text")
OWN_RESOLUTION = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe", "glm4v", "glm4v_moe")


class UnknownImageCost(ValueError):
    """A kind of model whose image tokens no rule gives."""


def image_cost(config: Config, preprocessor: Config, size: Size, max_pixels: int | None = None) -> ImageCost:
    """What an image of `size` costs.

    Args:
        config: the model's configuration, with `vision_config`.
        preprocessor: fields of the image processor; empty: its class's defaults.
        size: width and height in pixels.
        max_pixels: the profile's bound on the processor's images.

    Raises:
        UnknownImageCost: no rule for this `model_type`, or it can't keep the bound.
    """
    kind = str(config.get("model_type"))
    if kind in FIXED or kind == "mllama":
        if max_pixels is not None:
            raise UnknownImageCost(f"policy.max_pixels: {kind} resizes every image alike; set it to null")
        return _fixed(config) if kind in FIXED else _cross_tiles(config)
    if kind in ("llava_next", "llava_onevision"):
        return _anyres(config, size, max_pixels)
    if kind in ("idefics3", "smolvlm"):
        return _scaled_tiles(config, preprocessor, size, max_pixels)
    if kind in OWN_RESOLUTION:
        return _own_resolution(config, preprocessor, size, max_pixels)
    raise UnknownImageCost(f"no rule for the image tokens of {kind}")


def _at_least(max_pixels: int, least: int) -> int:
    if max_pixels < least:
        raise UnknownImageCost(
            f"policy.max_pixels is {max_pixels}: the smallest image of its processor has {least} pixels"
        )
    return max_pixels


def _grid(config: Config) -> tuple[int, int]:
    """The vision tower's side in pixels, and in patches."""
    vision = config["vision_config"]
    side = int(vision["image_size"])
    return side, side // int(vision["patch_size"])


def _fixed(config: Config) -> ImageCost:
    side, patches = _grid(config)
    tokens = int(config.get("mm_tokens_per_image") or patches**2)
    return ImageCost(tokens, patches**2 + 1, 1, 3 * side**2)


def best_resolution(size: Size, grids: Sequence[Sequence[int]]) -> Size:
    """Of grids (height, width): the one in which most of the image's pixels fit, with the least waste."""
    width, height = size

    def fit(grid: Sequence[int]) -> tuple[int, int]:
        scale = min(grid[1] / width, grid[0] / height)
        used = min(int(width * scale) * int(height * scale), width * height)
        return used, -(grid[0] * grid[1] - used)

    rows, columns = max(grids, key=fit)
    return int(columns), int(rows)


def _anyres(config: Config, size: Size, max_pixels: int | None) -> ImageCost:
    side, base = _grid(config)
    grids = config["image_grid_pinpoints"]
    if max_pixels is not None:
        _at_least(max_pixels, min(height * width for height, width in grids))
        grids = [grid for grid in grids if grid[0] * grid[1] <= max_pixels]
    width, height = best_resolution(size, grids)
    rows, columns = base * (height // side), base * (width // side)
    crops = 1 + (height // side) * (width // side)
    ratio = size[0] / size[1]
    if ratio > columns / rows:
        rows -= 2 * ((rows - int(round(size[1] * columns / size[0], 7))) // 2)
    else:
        columns -= 2 * ((columns - int(round(size[0] * rows / size[1], 7))) // 2)
    if config["model_type"] == "llava_onevision":
        most = int(str(config.get("vision_aspect_ratio", "anyres_max_9")).rpartition("_")[2])
        shrink = math.sqrt(rows * columns / (most * base**2))
        if shrink > 1.1:
            rows, columns = int(rows // shrink), int(columns // shrink)
    tokens = base**2 + rows * columns + rows  # the whole image, its tiles, and a newline for every row of patches
    return ImageCost(tokens, crops * (base**2 + 1), crops, 3 * crops * side**2)


def _scaled_tiles(config: Config, preprocessor: Config, size: Size, max_pixels: int | None) -> ImageCost:
    side = int((preprocessor.get("max_image_size") or {}).get("longest_edge") or config["vision_config"]["image_size"])
    longest = int((preprocessor.get("size") or {}).get("longest_edge") or 4 * side)
    if max_pixels is not None:
        longest = min(longest, math.isqrt(_at_least(max_pixels, side**2)) // side * side)
    patches = side // int(config["vision_config"]["patch_size"])
    each = patches**2 // int(config["scale_factor"]) ** 2
    crops, markers = 1, 3
    if preprocessor.get("do_image_splitting", True):
        scaled = (length * longest // max(size) for length in size)
        columns, rows = (math.ceil((length + length % 2) / side) for length in scaled)  # to an even number of pixels
        if rows * columns > 1:
            crops = rows * columns + 1
            markers = 2 * rows * columns + rows + 4  # before each tile a border and its place; a line's end a row
    return ImageCost(crops * each + markers, crops * patches**2, crops, 3 * crops * side**2)


def _cross_tiles(config: Config) -> ImageCost:
    vision = config["vision_config"]
    side, patches = _grid(config)
    tiles = int(vision.get("max_num_tiles", 4))  # padded to it
    tokens = tiles * (patches**2 + 1)
    # The tower pads each tile to a multiple of 8.
    padded = tiles * 8 * math.ceil((patches**2 + 1) / 8)
    return ImageCost(1, padded, 1, 3 * tiles * side**2, cross_tokens=tokens)


def _own_resolution(config: Config, preprocessor: Config, size: Size, max_pixels: int | None) -> ImageCost:
    vision = config["vision_config"]
    patch, merge = int(vision["patch_size"]), int(vision.get("spatial_merge_size", 2))
    bounds = preprocessor.get("size") or {}
    least = int(preprocessor.get("min_pixels") or bounds.get("shortest_edge") or 4 * (patch * merge) ** 2)
    most = int(preprocessor.get("max_pixels") or bounds.get("longest_edge") or 1280 * (patch * merge) ** 2)
    unit = patch * merge
    if max_pixels is not None:
        most, least = _at_least(max_pixels, unit**2), min(least, max_pixels)
    width, height = (max(unit, round(length / unit) * unit) for length in size)
    if width * height > most:
        scale = math.sqrt(size[0] * size[1] / most)
        width, height = (max(unit, math.floor(length / scale / unit) * unit) for length in size)
    elif width * height < least:
        scale = math.sqrt(least / (size[0] * size[1]))
        width, height = (math.ceil(length * scale / unit) * unit for length in size)
    patches = (width // patch) * (height // patch)
    frames = int(vision.get("temporal_patch_size", 2))
    return ImageCost(patches // merge**2 + 2, patches, 1, 3 * frames * patches * patch**2)
