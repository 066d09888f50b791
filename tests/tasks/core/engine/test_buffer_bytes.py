"""How many bytes of keys and values are held while a batch is rebuilt, in units of the prefixes in flight."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tasks.core.engine.batch import Batch
from tasks.core.engine.decoder import Decoder
from tasks.core.engine.layers import SLABS
from tasks.core.engine.rows import Draw, Row
from tasks.core.search.requests import ANSWER
from tests.support.plain import answer

CANDIDATES, LONG = 3, 12
PROMPT = "a red ball lies on the green table near a blue box " * 17


def live() -> dict[int, int]:
    """Address -> bytes of every storage that a tensor in this process views."""
    held = {}
    for thing in gc.get_objects():
        if type(thing) is torch.Tensor:
            storage = thing.untyped_storage()
            held[storage.data_ptr()] = storage.nbytes()
    return held


class Peak(TorchDispatchMode):
    """The most that is live after any operation that makes a large tensor, less what was live at the start."""

    def __init__(self, before: dict[int, int], large: int) -> None:
        super().__init__()
        self.before, self.large, self.bytes = set(before), large, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and out.untyped_storage().nbytes() >= self.large:
            held = live() | {out.untyped_storage().data_ptr(): out.untyped_storage().nbytes()}
            self.bytes = max(self.bytes, sum(size for at, size in held.items() if at not in self.before))
        return out


def measured(policy: Any, pictures: list[Any], monkeypatch: pytest.MonkeyPatch) -> tuple[list[float], list[float], int]:
    """(peak while each batch was made, size of its buffer), both over the bytes of the prefixes in flight; slabs."""
    gc.collect()
    before = live()
    decoder = Decoder(policy)
    starts = [prompt.prefix for prompt in decoder.start(pictures, [PROMPT] * len(pictures))]
    prefixes = sum(slab.numel() * slab.element_size() for start in starts for slab in start.kv)
    peaks: list[float] = []
    sizes: list[float] = []
    make = Batch.__init__

    def watched(self: Batch, *args: Any, **options: Any) -> None:
        with Peak(before, prefixes // (2 * SLABS * len(pictures))) as peak:
            make(self, *args, **options)
        peaks.append(peak.bytes / prefixes)
        sizes.append(sum(slab.numel() * slab.element_size() for slab in self.buffer.slabs) / prefixes)

    monkeypatch.setattr(Batch, "__init__", watched)
    # All candidates of an image but the last finish early; the last of each is moved to a new buffer.
    limits = [4] * (CANDIDATES - 1) + [LONG]
    rows = [Row(start, Draw(0.0, 1.0, ("b", i)), ANSWER, limits[i]) for start in starts for i in range(CANDIDATES)]
    answer(decoder, rows)
    return peaks, sizes, len(starts[0].kv)


def test_a_rebuilt_batch_holds_the_prefixes_a_buffer_and_one_slab_of_the_old(policy, pictures, monkeypatch) -> None:
    peaks, buffers, slabs = measured(policy, pictures[:4], monkeypatch)
    assert len(peaks) >= 2, "no batch was rebuilt"
    # The prefixes, the new buffer, and the old one's slab that is being moved.
    assert max(peaks) <= 1.03 * (1 + (1 + 1 / slabs) * max(buffers))
    # Keeping the old buffer whole would need all of both.
    assert max(peaks) < 0.95 * (1 + buffers[0] + buffers[1])
