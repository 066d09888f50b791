"""Seeds that name what is drawn, never where in a batch it was drawn."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

Part = str | int | float


def seed_for(*parts: Part) -> int:
    """A 63-bit seed that depends on `parts` only: the same in every process, on every machine."""
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=8).digest()) >> 1


def uniforms(count: int, *parts: Part) -> np.ndarray:
    """`count` draws from [0, 1) that belong to `parts`, float64, shape [count]; a longer request has the same start."""
    return np.random.Generator(np.random.Philox(key=seed_for(*parts))).random(count)


def digest_of(*parts: Part) -> str:
    """A short stable name for `parts`: 16 hexadecimal digits."""
    return blake2b(repr(parts).encode(), digest_size=8).hexdigest()
