"""Tables as artifacts: publish rows, read them back, merge the tables of shards.

A published table is sorted by its primary key and written the same way every time, so equal rows give an equal
digest, whatever order or number of shards they came from. Annotations can be read by evaluation only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage import objects
from storage.artifacts import ArtifactRef, Table
from storage.objects import ArtifactError, ArtifactMissing
from storage.rows import RowError, conform, sort_unique, to_rows, to_table
from storage.schema import ROW_TYPES, Annotation, Answer, Image, Row

__all__ = [
    "AnnotationsForbidden",
    "RowError",
    "WrongArtifact",
    "annotations_allowed",
    "check",
    "merge",
    "publish",
    "read",
    "read_rows",
]

R = TypeVar("R", bound=Row)
Tables = Table[Any] | Sequence[Table[Any]]

# Images are looked up by id, a shard at a time: small groups let a reader skip the others. Texts compress better in
# large ones.
_GROUP_ROWS = {Image.table: 100}
_DEFAULT_GROUP_ROWS = 100_000
# A single image is read with its whole group.
_GROUP_BYTES = 16 * 2**20

_allowed: ContextVar[bool] = ContextVar("annotations_allowed", default=False)


class AnnotationsForbidden(ArtifactError):
    """Annotations were read outside evaluation."""


class WrongArtifact(ArtifactError):
    """A reference of another kind or schema version than needed."""


@contextmanager
def annotations_allowed() -> Iterator[None]:
    """Allow reading annotations; only the cache enters this, for stages declared `reads_annotations=True`."""
    token = _allowed.set(True)
    try:
        yield
    finally:
        _allowed.reset(token)


def publish(row_type: type[R], rows: Iterable[R] | pa.Table) -> Table[R]:
    """Write rows as an immutable table.

    Args:
        row_type: what one row is; its schema is enforced.
        rows: the rows, or a table with its columns, in any order.

    Raises:
        RowError: a value does not fit, or two rows have one primary key; says which.
    """
    table = sort_unique(row_type, to_table(row_type, rows))
    with objects.using_store():
        temporary = objects.temporary_path(".parquet")
        group = _GROUP_ROWS.get(row_type.table, _DEFAULT_GROUP_ROWS)
        with pq.ParquetWriter(temporary, table.schema, compression="zstd") as writer:
            for start, count in _groups(row_type, table, group):
                writer.write_table(table.slice(start, count), row_group_size=group)
        digest, size = objects.install_file(temporary, ".parquet")
    return Table(kind=row_type.table, digest=digest, rows=table.num_rows, schema_version=row_type.version, size=size)


def _groups(row_type: type[Row], table: pa.Table, rows: int) -> Iterator[tuple[int, int]]:
    """(first row, number of rows) of each group: at most `rows`, and of images no more bytes than `_GROUP_BYTES`."""
    if row_type is not Image:
        yield 0, table.num_rows
        return
    sizes = pc.fill_null(pc.binary_length(pc.struct_field(table.column("image"), "bytes")), 0).to_pylist()
    start, held = 0, 0
    for row, size in enumerate(sizes):
        if row > start and (row - start == rows or held + size > _GROUP_BYTES):
            yield start, row - start
            start, held = row, 0
        held += size
    yield start, table.num_rows - start


def _listed(refs: Tables) -> list[Table[Any]]:
    listed = [refs] if isinstance(refs, ArtifactRef) else list(refs)
    if not listed:
        raise WrongArtifact("no references: nothing to read")
    return listed


def check(ref: ArtifactRef, needed: str | None = None) -> type[Row]:
    """The row type of a reference.

    Raises:
        WrongArtifact: it is not a table, not the table needed, or of another schema version.
        ArtifactMissing: its file is gone.
    """
    if needed is not None and ref.kind != needed:
        raise WrongArtifact(f"got {ref}, but {needed} was needed; pass the output that holds {needed}")
    if not ref.is_table:
        raise WrongArtifact(f"got {ref}, a checkpoint, but a table was needed; load it with storage.checkpoints")
    row_type = ROW_TYPES[ref.kind]
    if ref.schema_version != row_type.version:
        raise WrongArtifact(
            f"{ref} has schema version {ref.schema_version}, this code needs {row_type.version}; "
            "run again (visloop run): stages whose outputs are of an older version compute them again"
        )
    return row_type


def _load(ref: ArtifactRef, columns: list[str] | None, keys: Collection[str] | None) -> pa.Table:
    row_type = check(ref)
    path: Path = ref.path
    wanted = None if keys is None else pc.field(row_type.primary_key[0]).isin(list(keys))
    try:
        table = pq.read_table(path, columns=columns, filters=wanted, partitioning=None)
    except FileNotFoundError:
        raise ArtifactMissing(
            f"{ref} is not in {objects.home()}; run again (visloop run): the stage that made it will make it again"
        ) from None
    return table if columns is not None else conform(row_type, table)


def read(refs: Tables, *, columns: list[str] | None = None, keys: Collection[str] | None = None) -> pa.Table:
    """One Arrow table of one or several artifacts of one kind, each sorted by its primary key.

    Args:
        refs: what to read.
        columns: only these.
        keys: only rows whose first primary-key column is among these; skips what it can on disk.

    Raises:
        WrongArtifact: kind or schema version do not fit.
        AnnotationsForbidden: annotations, outside evaluation.
        ArtifactMissing: a file is gone.
    """
    listed = _listed(refs)
    for ref in listed:
        check(ref, listed[0].kind)
        if ref.kind in (Annotation.table, Answer.table) and not _allowed.get():
            raise AnnotationsForbidden(
                "annotations say what is truly in the images: only stages declared "
                "@stage(reads_annotations=True), that is evaluation, may read them"
            )
    return pa.concat_tables([_load(ref, columns, keys) for ref in listed])


def read_rows(
    row_type: type[R], refs: Table[R] | Sequence[Table[R]], *, keys: Collection[str] | None = None
) -> list[R]:
    """The rows of one or several artifacts as their dataclasses; errors as `read`'s."""
    listed = _listed(refs)
    for ref in listed:
        check(ref, row_type.table)
    return to_rows(row_type, read(listed, keys=keys))


def merge(refs: Sequence[Table[Any]]) -> Table[Any]:
    """One sorted table of the tables of shards: the same digest however many shards there were.

    Raises:
        WrongArtifact: they are not of one kind.
        RowError: two shards hold the same row.
    """
    row_type = check(_listed(refs)[0])
    for ref in refs:
        check(ref, row_type.table)
    if len(refs) == 1:
        return refs[0]
    return publish(row_type, pa.concat_tables([_load(ref, None, None) for ref in refs]))
