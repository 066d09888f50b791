"""Image files as people have them: broken, tiny, huge, turned, animated, printed."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

import PIL.Image
import pytest

from storage.images import decode, read_image_file, scan_folder
from storage.schema import Image, ImageFile, Quarantined


def picture(mode: str = "RGB", size: tuple[int, int] = (40, 30), colour: object = None) -> PIL.Image.Image:
    return PIL.Image.new(mode, size, colour or 0)


def saved(folder: Path, name: str, image: PIL.Image.Image, **options: object) -> Path:
    path = folder / name
    image.save(path, **options)
    return path


def read(path: Path) -> Image | Quarantined:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read_image_file(path, image_id=path.name, source="folder", split="train")


def png_header(width: int, height: int) -> bytes:
    """A PNG whose header states a size and that holds nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n"
    for name, body in ((b"IHDR", header), (b"IDAT", zlib.compress(b""))):
        data += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    return data


def broken(folder: Path, kind: str) -> Path:
    path = folder / f"{kind}.png"
    if kind == "truncated":
        noise = PIL.Image.effect_noise((64, 64), 90)
        path = saved(folder, "truncated.jpg", noise)
        path.write_bytes(path.read_bytes()[:-800])
    elif kind == "text":
        path.write_text("not an image")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "dot":
        saved(folder, "dot.png", picture(size=(1, 1)))
    elif kind == "absent":
        pass
    else:
        path.write_bytes(png_header(*{"60mp": (10_000, 6_000), "100mp": (10_000, 10_000)}.get(kind, (60_000, 60_000))))
    return path


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("truncated", "unreadable"),
        ("text", "unreadable"),
        ("empty", "unreadable"),
        ("absent", "unreadable"),
        ("dot", "too_small"),
        ("60mp", "too_large"),
        ("100mp", "too_large"),  # Pillow warns
        ("bomb", "too_large"),  # Pillow refuses
    ],
)
def test_a_file_that_can_not_be_used_is_a_row_with_a_reason(tmp_path: Path, kind: str, reason: str) -> None:
    path = broken(tmp_path, kind)
    row = read(path)
    assert isinstance(row, Quarantined)
    assert (row.reason, row.item_id, row.stage) == (reason, path.name, "sample")
    assert row.detail.startswith(f"{path.name}: ")


def test_the_bytes_are_kept_as_they_were(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.jpg", picture(colour=(200, 0, 0)))
    row = read(path)
    assert isinstance(row, Image)
    assert row.image.bytes == path.read_bytes()
    assert (row.width, row.height, row.source, row.split) == (40, 30, "folder", "train")


def test_an_animation_is_its_first_frame(tmp_path: Path) -> None:
    frames = [picture(colour=colour) for colour in ((255, 0, 0), (0, 0, 255))]
    row = read(saved(tmp_path, "a.gif", frames[0], save_all=True, append_images=frames[1:]))
    assert isinstance(row, Image)
    assert decode(row.image).getpixel((5, 5)) == (255, 0, 0)


def test_a_print_image_becomes_rgb(tmp_path: Path) -> None:
    row = read(saved(tmp_path, "a.jpg", picture("CMYK", colour=(0, 0, 0, 0)), quality=100))
    assert isinstance(row, Image)
    assert decode(row.image).mode == "RGB"
    assert min(decode(row.image).getpixel((5, 5))) > 250


def test_a_turned_photo_is_upright_in_size_and_pixels(tmp_path: Path) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    image = picture()
    image.paste((255, 0, 0), (0, 0, 40, 15))  # red above, and on the right once turned
    row = read(saved(tmp_path, "a.png", image, exif=exif))
    assert isinstance(row, Image)
    assert (row.width, row.height) == decode(row.image).size == (30, 40)
    assert decode(row.image).getpixel((28, 20)) == (255, 0, 0)


@pytest.mark.parametrize(("mode", "colour"), [("RGBA", (0, 0, 0, 0)), ("LA", (0, 0))])
def test_what_is_transparent_is_white(tmp_path: Path, mode: str, colour: object) -> None:
    row = read(saved(tmp_path, "a.png", picture(mode, colour=colour)))
    assert isinstance(row, Image)
    assert decode(row.image).getpixel((5, 5)) == (255, 255, 255)


def test_sixteen_bits_keep_their_shades(tmp_path: Path) -> None:
    row = read(saved(tmp_path, "a.png", picture("I;16", colour=32768)))
    assert isinstance(row, Image)
    assert decode(row.image).getpixel((5, 5)) == (128, 128, 128)


def test_a_row_that_points_to_a_file_is_read_from_there(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.png", picture())
    assert decode(ImageFile(bytes=None, path=str(path))).size == (40, 30)
    with pytest.raises(ValueError, match="neither"):
        decode(ImageFile(bytes=None, path=None))


def test_a_folder_is_searched_through_all_its_levels(tmp_path: Path) -> None:
    for name in ("b/2.JPG", "a/1.webp", "c.tif", "notes.txt", ".hidden/x.png", "b/.y.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [path.relative_to(tmp_path).as_posix() for path in scan_folder(tmp_path)] == ["a/1.webp", "b/2.JPG", "c.tif"]
    with pytest.raises(FileNotFoundError, match="no such folder of images"):
        scan_folder(tmp_path / "none")


def test_reading_leaves_pillow_as_it_was(tmp_path: Path) -> None:
    limit = PIL.Image.MAX_IMAGE_PIXELS
    read(broken(tmp_path, "bomb"))
    assert limit == PIL.Image.MAX_IMAGE_PIXELS
    with pytest.raises(PIL.UnidentifiedImageError):
        PIL.Image.open(io.BytesIO(b"x"))
