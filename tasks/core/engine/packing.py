"""Which rows share a row of the buffer: candidates after one prefix are queries over one copy of its keys and values.

A chunk is one row of the buffer: the prefix's keys and values, then `width` columns for each decoding step, one for each of
its rows. Row j of a chunk attends to the prefix and to every `width`-th column from j on, so it never sees another row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tasks.core.engine.kv_prefix import KVPrefix
from tasks.core.engine.rows import Row

STEPS_AHEAD = 32  # decoding steps that a batch has columns for
_QUERY = 150  # cached columns that cost about as much as one more query; used to choose the width only


@dataclass(frozen=True)
class Chunk:
    """Rows after one prefix that have decoded equally many tokens."""

    prefix: KVPrefix
    decoded: int
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Packing:
    """The layout of rows in a buffer."""

    chunks: tuple[Chunk, ...]
    width: int  # queries in a chunk
    columns: int  # in use by the longest chunk
    extra: int  # columns for tokens to come

    @property
    def kv_tokens(self) -> int:
        """Size of the cache: chunks times columns."""
        return len(self.chunks) * (self.columns + self.extra)


def pack(rows: Iterable[Row], *, apart: bool = False) -> Packing:
    """The packing with the least work: wide chunks copy a prefix fewer times, narrow ones waste no queries.

    With `apart` every row is a chunk of its own: a recurrent layer knows no mask.
    """
    together: dict[tuple[int, int], list[Row]] = {}
    for row in rows:
        together.setdefault((id(row.prefix), len(row.tokens)), []).append(row)
    groups = list(together.values())
    if not groups:
        raise ValueError("no rows to pack")
    sizes = [(len(group), group[0].prefix.length) for group in groups]
    widest = 1 if apart else max(size for size, _ in sizes)
    width = min(range(1, widest + 1), key=lambda w: (_work(sizes, w), w))
    chunks = tuple(
        Chunk(group[0].prefix, len(group[0].tokens), tuple(group[at : at + width]))
        for group in groups
        for at in range(0, len(group), width)
    )
    steps = max(1, min(STEPS_AHEAD, max(row.limit - len(row.tokens) for group in groups for row in group)))
    columns = max(chunk.prefix.length + chunk.decoded * width for chunk in chunks)
    return Packing(chunks, width, columns, steps * width)


def _work(sizes: Sequence[tuple[int, int]], width: int) -> float:
    return sum(-(-size // width) * (width + length / _QUERY) for size, length in sizes)
