"""Lets open_clip and transformers import where torchvision's compiled operators do not fit the installed torch.

torchvision registers shape functions for `torchvision::nms` when it is imported; where its compiled library can't be
loaded (a CPU build of torch beside an index build of torchvision), that operator does not exist and the import fails
for everything that touches it. Declaring the two operators cures the import. They stay without an implementation:
nothing here suppresses boxes, and a call says so loudly.

Import this module before transformers and open_clip.
"""

from __future__ import annotations

import ctypes
import sys
from importlib.util import find_spec
from pathlib import Path

import torch

SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
OPERATORS = ("nms", "qnms")

_declared: list[torch.library.Library] = []  # a library's declarations live as long as the object


def ensure_torchvision_operators() -> bool:
    """Declare what is missing; returns whether anything was. Safe to call again, a no-op without torchvision."""
    if _declared or "torchvision" in sys.modules or _compiled_operators_load():
        return False
    library = torch.library.Library("torchvision", "DEF")
    for name in OPERATORS:
        library.define(f"{name}{SIGNATURE}")
    _declared.append(library)
    return True


def _compiled_operators_load() -> bool:
    """Whether torchvision is absent (then nothing is to cure) or its compiled library loads into this torch."""
    spec = find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return True
    folder = Path(spec.submodule_search_locations[0])
    libraries = [path for pattern in ("_C*.so", "_C*.pyd", "_C*.dylib") for path in folder.glob(pattern)]
    for path in libraries:
        try:
            torch.ops.load_library(str(path))
        except (OSError, RuntimeError, ctypes.ArgumentError):
            continue
        return hasattr(torch.ops.torchvision, "nms")
    return False


ensure_torchvision_operators()
