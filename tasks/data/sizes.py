"""How large the images of a source are, before any is sampled: what memory is planned for."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from storage.images import largest_size, scan_folder
from tasks.configs.data import CocoSource, DemoSource, FolderSource

COCO = (640, 640)  # the largest of COCO 2017
LOOKED_AT = 1000  # files whose headers are read


class ImageSize(NamedTuple):
    """Width and height in pixels, and how they are known."""

    width: int
    height: int
    why: str

    @property
    def size(self) -> tuple[int, int]:
        """Without the reason."""
        return self.width, self.height


def largest_image(source: DemoSource | CocoSource | FolderSource, max_megapixels: float) -> ImageSize:
    """The size of a source's largest image, of a thousand at even distances; COCO's where its folder isn't there.

    A folder that isn't there counts with the largest image that is accepted.
    """
    if isinstance(source, DemoSource):
        from tasks.core.demo.scenes import SIDE

        return ImageSize(SIDE, SIDE, "drawn scenes")
    root = Path(source.root).expanduser()
    folder = root / source.split if isinstance(source, CocoSource) else root
    files = scan_folder(folder) if folder.is_dir() else []
    looked_at = files[:: max(1, len(files) // LOOKED_AT)]
    largest = largest_size(looked_at, max_megapixels)
    if largest is not None:
        return ImageSize(*largest, f"the largest of {len(looked_at)} files in {folder}")
    if isinstance(source, CocoSource):
        return ImageSize(*COCO, f"COCO's largest; {folder} isn't there")
    side = int((max_megapixels * 1e6) ** 0.5)
    return ImageSize(side, side, f"sample.max_megapixels; {folder} isn't there")
