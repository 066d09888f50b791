"""Pictures with the statistics of photographs, drawn from a seed: noise at every scale (power falls with frequency, as in
natural images), lit from one side, with textured shapes in front of it."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE = (640, 480)  # width, height in pixels


def photographs(count: int, size: tuple[int, int] = SIZE, seed: int = 0) -> list[Image.Image]:
    """`count` RGB images, the same ones for the same seed."""
    return [photograph(size, (seed, index)) for index in range(count)]


def photograph(size: tuple[int, int], seed: tuple[int, int]) -> Image.Image:
    """One image of `size` (width, height)."""
    random = np.random.default_rng(seed)
    picture = _texture(size, random)
    for _ in range(int(random.integers(2, 6))):
        mask = _shape(size, random)
        picture = Image.composite(_texture(size, random), picture, mask)
    return picture


def _texture(size: tuple[int, int], random: np.random.Generator) -> Image.Image:
    """Noise of all octaves around a colour, brighter on one side."""
    width, height = size
    noise = np.zeros((height, width), dtype=np.float32)
    for octave in range(2, int(math.log2(max(size))) + 1):
        cells = random.standard_normal((max(2, height * 2**octave // max(size)), 2**octave)).astype(np.float32)
        noise += np.asarray(Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC)) / 2**octave
    noise /= max(float(noise.std()), 1e-6)
    angle = random.uniform(0, 2 * math.pi)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    light = math.cos(angle) * (columns / width - 0.5) + math.sin(angle) * (rows / height - 0.5)
    colour, tint = random.uniform(40, 215, 3), random.uniform(0.6, 1.4, 3)
    levels = colour + (28 * noise + 50 * light)[..., None] * tint
    return Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8))


def _shape(size: tuple[int, int], random: np.random.Generator) -> Image.Image:
    """An ellipse or a polygon with soft edges, as a mask."""
    width, height = size
    mask = Image.new("L", size, 0)
    middle, reach = random.uniform(0, 1, 2) * (width, height), random.uniform(0.08, 0.3) * min(size)
    draw = ImageDraw.Draw(mask)
    if random.random() < 0.5:
        radii = np.array((reach, reach * random.uniform(0.5, 1.5)))
        draw.ellipse((*(middle - radii), *(middle + radii)), fill=255)
    else:
        angles = np.sort(random.uniform(0, 2 * math.pi, int(random.integers(3, 8))))
        points = [(middle[0] + reach * math.cos(angle), middle[1] + reach * math.sin(angle)) for angle in angles]
        draw.polygon(points, fill=255)
    return mask.filter(ImageFilter.GaussianBlur(1))
