"""How many parameters a checkpoint has, read from its files' headers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from storage import checkpoints
from storage.artifacts import PolicyCheckpoint
from tasks.stage.quarantine import StageInputError
from tasks.stage.results import StageResult
from tasks.stage.stage import stage


@dataclass(frozen=True)
class SizeResult(StageResult):
    """A checkpoint's size."""

    parameters: int


@stage()
def size_of(policy: PolicyCheckpoint) -> SizeResult:
    """Parameters in all the checkpoint's safetensors files; tied weights are in them once.

    Raises:
        StageInputError: no safetensors file.
    """
    from safetensors import safe_open

    files = sorted(checkpoints.folder(policy).glob("*.safetensors"))
    if not files:
        raise StageInputError(f"{policy}: no .safetensors file, so its size is unknown; save it as safetensors")
    total = 0
    for file in files:
        with safe_open(file, framework="np") as tensors:
            total += sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    return SizeResult(parameters=total)
