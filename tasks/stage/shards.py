"""Shards: contiguous parts of a sorted table, each worked on and cached by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ConfigDict, model_validator

T = TypeVar("T")


class Shard(BaseModel):
    """One of `of` contiguous parts of a sorted table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: int = 0
    of: int = 1

    @model_validator(mode="after")
    def _index_is_within(self) -> Shard:
        if not 0 <= self.index < self.of:
            raise ValueError(f"shard {self.index} of {self.of}: the index runs from 0 to {self.of - 1}")
        return self

    def slice(self, items: Sequence[T]) -> Sequence[T]:
        """This shard's part; the parts of all shards, in order, are the whole. Works for Arrow tables too."""
        start, stop = (len(items) * index // self.of for index in (self.index, self.index + 1))
        if hasattr(items, "schema"):
            return cast(Sequence[T], cast(Any, items).slice(start, stop - start))
        return items[start:stop]


WHOLE = Shard()


def split(n: int, rows: int | None) -> list[Shard]:
    """`n` shards, but not more than there are rows (None: not known).

    Raises:
        ValueError: less than one shard.
    """
    if n < 1:
        raise ValueError(f"{n} shards; at least one is needed")
    of = n if rows is None else max(1, min(n, rows))
    return [Shard(index=index, of=of) for index in range(of)]
