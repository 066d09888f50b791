"""A folder of images as people have them."""

from __future__ import annotations

import io
import random
from pathlib import Path

import PIL.Image

GOOD = 14


def picture(seed: int, size: tuple[int, int] = (64, 48)) -> PIL.Image.Image:
    return PIL.Image.frombytes("RGB", size, random.Random(seed).randbytes(size[0] * size[1] * 3))


def wild_folder(root: Path) -> Path:
    """A folder as people have them: good pictures, odd ones that can be used, and four that can't."""
    root.mkdir()
    for i in range(GOOD):
        picture(i).save(root / f"good-{i:02d}.png")
    picture(90).convert("CMYK").save(root / "print.jpg")
    picture(91).save(root / "moving.gif", save_all=True, append_images=[picture(92), picture(93)])
    buffer = io.BytesIO()
    picture(94, (200, 200)).save(buffer, "JPEG")
    (root / "truncated.jpg").write_bytes(buffer.getvalue()[: buffer.tell() // 2])
    (root / "text.png").write_text("this is no image")
    picture(95, (1, 1)).save(root / "dot.png")
    PIL.Image.new("1", (10_000, 6_000)).save(root / "huge.png")  # 60 megapixels
    return root
