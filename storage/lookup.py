"""Rows of a published table by their key, read one at a time: what a training needs of images, whatever their number.

The index holds keys only; of the file no more than the row group with the row is read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Generic, TypeVar

import pyarrow.parquet as pq

from storage import lake, objects
from storage.artifacts import Table
from storage.objects import ArtifactMissing
from storage.rows import conform, to_rows
from storage.schema import Row

R = TypeVar("R", bound=Row)


class Lookup(Mapping[str, R], Generic[R]):
    """The rows of a table whose primary key is one text column, by that key."""

    def __init__(self, row_type: type[R], ref: Table[R], keys: Collection[str] | None = None) -> None:
        """Index the table, or only the rows with these keys.

        Raises:
            WrongArtifact: kind or schema version do not fit.
            ArtifactMissing: its file is gone.
            KeyError: a key that the table does not hold.
        """
        lake.check(ref, row_type.table)
        self.row_type, self.ref = row_type, ref
        (name,) = row_type.primary_key
        try:
            self._file = pq.ParquetFile(ref.path)
        except FileNotFoundError:
            raise ArtifactMissing(
                f"{ref} is not in {objects.home()}; run again (visloop run): the stage that made it will make it again"
            ) from None
        wanted = None if keys is None else set(keys)
        self._places: dict[str, tuple[int, int]] = {}  # key -> (row group, row in it)
        for group in range(self._file.num_row_groups):
            column = self._file.read_row_group(group, columns=[name]).column(name).to_pylist()
            self._places |= {key: (group, i) for i, key in enumerate(column) if wanted is None or key in wanted}
        missing = set() if wanted is None else wanted - self._places.keys()
        if missing:
            raise KeyError(f"{ref} lacks {len(missing)} of {len(wanted or ())} rows: {sorted(missing)[:5]} ...")

    def __getitem__(self, key: str) -> R:
        group, row = self._places[key]
        table = self._file.read_row_group(group).slice(row, 1)
        return to_rows(self.row_type, conform(self.row_type, table))[0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)
