"""Which rows share a row of the batch: candidates of one place are queries over the one copy of what was read up to there.

A chunk is one row of the buffer: a place's keys and values, then `width` columns for each token that its rows say, side by
side. Row j of a chunk sees the place and every `width`-th column from j on, so its neighbours are as far as another row's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tasks.core.engine.kv_prefix import Place
from tasks.core.engine.rows import Row

ROOM = 32  # tokens a batch has columns for
_QUERY = 150  # cached columns that cost about what one more query does; the choice of width is all that hangs on it


@dataclass(frozen=True)
class Chunk:
    """Rows at one place that have said equally many tokens."""

    place: Place
    said: int
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Packing:
    """How rows lie in a buffer."""

    chunks: tuple[Chunk, ...]
    width: int  # queries of a chunk
    columns: int  # in use: the longest chunk's
    extra: int  # for tokens to come

    @property
    def cells(self) -> int:
        """Chunks times columns."""
        return len(self.chunks) * (self.columns + self.extra)


def pack(rows: Iterable[Row]) -> Packing:
    """The packing with the least work: wide chunks copy a place less often, narrow ones waste no query."""
    together: dict[tuple[int, int], list[Row]] = {}
    for row in rows:
        together.setdefault((id(row.place), len(row.tokens)), []).append(row)
    groups = list(together.values())
    if not groups:
        raise ValueError("no rows to pack")
    sizes = [(len(group), group[0].place.length) for group in groups]
    width = min(range(1, max(size for size, _ in sizes) + 1), key=lambda w: (_work(sizes, w), w))
    chunks = tuple(
        Chunk(group[0].place, len(group[0].tokens), tuple(group[at : at + width]))
        for group in groups
        for at in range(0, len(group), width)
    )
    steps = max(1, min(ROOM, max(row.limit - len(row.tokens) for group in groups for row in group)))
    columns = max(chunk.place.length + chunk.said * width for chunk in chunks)
    return Packing(chunks, width, columns, steps * width)


def _work(sizes: Sequence[tuple[int, int]], width: int) -> float:
    return sum(-(-size // width) * (width + length / _QUERY) for size, length in sizes)
