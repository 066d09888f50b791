"""Image files: list them, check them, and decode them in the same way for every model.

An unusable file gives a quarantine row, not an exception. Nothing is re-encoded: the table keeps the bytes as they were.
"""

from __future__ import annotations

import hashlib
import io
import struct
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path

import PIL.Image
import PIL.ImageOps

from storage.schema import Image, ImageFile, Quarantined

SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff")
_ORIENTATION = 0x0112  # EXIF tag; 5 to 8 mean that width and height change places
# What Pillow's decoders raise on broken files; each format has its own.
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    MemoryError,
    OverflowError,
    struct.error,
    zlib.error,
)


def scan_folder(root: Path) -> list[Path]:
    """All image files under a folder, by their suffix, sorted; hidden files are left out.

    Raises:
        FileNotFoundError: no such folder.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder of images")
    files = [path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()]
    return sorted(path for path in files if not any(part.startswith(".") for part in path.relative_to(root).parts))


def largest_size(files: Sequence[Path], max_megapixels: float) -> tuple[int, int] | None:
    """Width and height of the file with the most pixels, by the headers; None where none can be read."""
    sizes = []
    for path in files:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
                with PIL.Image.open(path) as opened:
                    sizes.append(opened.size)
        except (*_BROKEN, PIL.Image.DecompressionBombError):
            continue
    return max(
        (size for size in sizes if size[0] * size[1] <= max_megapixels * 1e6),
        key=lambda size: size[0] * size[1],
        default=None,
    )


def read_image_file(
    path: Path,
    *,
    image_id: str,
    source: str,
    split: str,
    min_side: int = 8,
    max_megapixels: float = 50.0,
) -> Image | Quarantined:
    """Read one file: a row of `images`, or a row with the reason for refusal (unreadable, too_small, too_large).

    Size is decided from the header, before anything is decoded. Width and height are those of the upright image.
    """

    def refuse(reason: str, detail: str) -> Quarantined:
        return Quarantined(stage="sample", item_id=image_id, reason=reason, detail=f"{path.name}: {detail}")

    try:
        data = path.read_bytes()
        with warnings.catch_warnings():
            # Our own limit has its own message; Pillow's warning would reach the user's terminal, or fail a test.
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
            with PIL.Image.open(io.BytesIO(data)) as opened:
                width, height = opened.size
                if width * height > max_megapixels * 1e6:
                    return refuse("too_large", f"{width}x{height} pixels, at most {max_megapixels:g} megapixels")
                if min(width, height) < min_side:
                    return refuse("too_small", f"{width}x{height} pixels, at least {min_side} a side")
                if opened.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8):
                    width, height = height, width
                opened.load()
    except PIL.Image.DecompressionBombError:
        return refuse("too_large", f"more pixels than Pillow opens, at most {max_megapixels:g} megapixels")
    except PIL.UnidentifiedImageError:  # its text holds a memory address, which differs in every run
        return refuse("unreadable", f"no image format that Pillow knows, {len(data)} bytes")
    except _BROKEN as error:
        return refuse("unreadable", f"{type(error).__name__}: {str(error)[:200]}")
    return Image(
        image_id=image_id,
        image=ImageFile(bytes=data, path=path.name),
        width=width,
        height=height,
        sha256=hashlib.sha256(data).hexdigest(),
        source=source,
        split=split,
    )


def decode(image: ImageFile) -> PIL.Image.Image:
    """The first frame as upright RGB; transparent parts become white.

    Raises:
        ValueError: the row holds neither bytes nor a path.
    """
    if image.bytes is None and image.path is None:
        raise ValueError("an image with neither bytes nor path can't be decoded")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
        opened = PIL.Image.open(io.BytesIO(image.bytes) if image.bytes is not None else Path(str(image.path)))
    with opened:
        return _rgb(PIL.ImageOps.exif_transpose(opened))


def _rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    if image.mode.startswith("I;16"):
        image = image.point(lambda value: value / 256).convert("L")  # a plain conversion would clip at 255
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        image = image.convert("RGBA")
        white = PIL.Image.new("RGBA", image.size, "white")
        return PIL.Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")
