"""The demo world as a COCO-format data set on disk."""

from __future__ import annotations

from storage.coco import write_demo_dataset as write_demo_data

__all__ = ["write_demo_data"]
