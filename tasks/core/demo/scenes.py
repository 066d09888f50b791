"""A seeded generator of small scenes: two to four different objects of one everyday group on a pale background.

A scene is data (`Scene`); `draw_scene` turns it into pixels. Both are deterministic: the same seed gives the same
scene, and the same scene the same image.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

from tasks.core.demo.glyphs import GLYPHS, render_glyph

SIDE = 96  # px, width and height of a scene
GRID = 3  # objects stand in cells of a GRID x GRID grid
CELL = SIDE // GRID  # px
SIZES = range(26, 32)  # px, longer side of an object

# What is usually seen together. The order matters: each category's typical companion is its right-hand neighbour
# (the last one's is the first), see captions.py.
GROUPS: dict[str, tuple[str, ...]] = {
    "street": ("car", "traffic light", "stop sign", "bus", "truck", "motorcycle"),
    "journey": ("suitcase", "backpack", "airplane", "train", "handbag", "boat"),
    "farm": ("cow", "horse", "dog", "sheep", "cat"),
    "zoo": ("elephant", "zebra", "person", "giraffe", "bird", "umbrella"),
    "playground": ("skateboard", "bicycle", "kite", "frisbee", "sports ball", "skis"),
    "living room": ("couch", "tv", "chair", "vase", "potted plant", "book"),
    "desk": ("laptop", "mouse", "keyboard", "cell phone", "scissors", "clock"),
    "table": ("knife", "spoon", "cup", "bottle", "wine glass", "cake"),
    "food": ("apple", "banana", "orange", "carrot", "broccoli", "sandwich", "pizza", "hot dog", "donut"),
    "bathroom and bed": ("toilet", "toothbrush", "bed", "teddy bear"),
}
OUTSIDER_SHARE = 0.25  # of the scenes hold one object of another group


@dataclass(frozen=True, slots=True)
class Placed:
    """One object of a scene."""

    category: str
    cell: int  # 0 to 8, row by row
    left: int  # px
    top: int  # px
    width: int  # px
    height: int  # px
    size: int  # px, longer side
    flipped: bool


@dataclass(frozen=True, slots=True)
class Scene:
    """A group, a background colour and two to four objects of different categories."""

    group: str
    background: tuple[int, int, int]
    objects: tuple[Placed, ...]

    @property
    def categories(self) -> tuple[str, ...]:
        """What is truly in the picture, in drawing order."""
        return tuple(placed.category for placed in self.objects)

    @property
    def signature(self) -> tuple[tuple[str, int], ...]:
        """What stands where: two scenes with the same signature are the same scene."""
        return tuple(sorted((placed.category, placed.cell) for placed in self.objects))


def _place(rng: random.Random, category: str, cell: int) -> Placed:
    size, flipped = rng.choice(SIZES), rng.random() < 0.5
    width, height = render_glyph(category, size, flipped).size
    row, column = divmod(cell, GRID)
    left = column * CELL + rng.randint(0, CELL - width)
    top = row * CELL + rng.randint(0, CELL - height)
    return Placed(category, cell, left, top, width, height, size, flipped)


def sample_scene(rng: random.Random) -> Scene:
    """Draw one scene from `rng` (consumed)."""
    group = rng.choice(list(GROUPS))
    members = GROUPS[group]
    count = min(rng.choice((2, 3, 3, 4, 4)), len(members) - 1)
    categories = rng.sample(members, count)
    if rng.random() < OUTSIDER_SHARE:
        categories[-1] = rng.choice([name for name in GLYPHS if name not in members])
    cells = rng.sample(range(GRID * GRID), count)
    objects = tuple(_place(rng, category, cell) for category, cell in zip(categories, cells, strict=True))
    background = (rng.randint(205, 255), rng.randint(205, 255), rng.randint(205, 255))
    return Scene(group, background, objects)


def sample_scenes(seed: str, count: int, taken: set[tuple[tuple[str, int], ...]] | None = None) -> Iterator[Scene]:
    """`count` scenes for a seed. With `taken`, none whose signature is in it; the new ones are added to it."""
    rng = random.Random(seed)
    while count > 0:
        scene = sample_scene(rng)
        if taken is not None:
            if scene.signature in taken:
                continue
            taken.add(scene.signature)
        count -= 1
        yield scene


def draw_scene(scene: Scene) -> Image.Image:
    """The scene as an RGB image of SIDE x SIDE px."""
    image = Image.new("RGB", (SIDE, SIDE), scene.background)
    for placed in scene.objects:
        glyph = render_glyph(placed.category, placed.size, placed.flipped)
        image.paste(glyph, (placed.left, placed.top), glyph)
    return image
