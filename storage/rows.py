"""Row dataclasses to Arrow tables and back; the error for a value that does not fit its schema names the row."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Annotated, Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from storage.schema import Row, arrow_schema, documented

R = TypeVar("R", bound=Row)


class RowError(ValueError):
    """Rows that don't fit their table."""


def _plain(value: Any) -> Any:
    """Nested dataclasses as dicts; everything else as it is."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _column(row_type: type[Row], field: pa.Field, values: list[Any]) -> pa.Array:
    try:
        return pa.array(values, field.type)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeError):
        for index, value in enumerate(values):
            try:
                pa.array([value], field.type)
            except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeError) as error:
                raise RowError(
                    f"{row_type.table}.{field.name}, row {index}: {value!r:.80} is not a {field.type}: {error}"
                ) from None
        raise


def conform(row_type: type[Row], table: pa.Table) -> pa.Table:
    """The table with exactly the columns of its row type, in order; missing nullable ones are filled with None.

    Raises:
        RowError: a column is missing, unknown, of another type, or None in a column that is not nullable.
    """
    schema = arrow_schema(row_type)
    unknown = set(table.column_names) - set(schema.names)
    if unknown:
        raise RowError(f"{row_type.table} has no column {', '.join(sorted(unknown))}; it has {', '.join(schema.names)}")
    columns = []
    for field in schema:
        if field.name in table.column_names:
            try:
                column = table.column(field.name).cast(field.type)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise RowError(f"{row_type.table}.{field.name}: {error}") from None
        elif field.nullable:
            column = pa.nulls(table.num_rows, field.type)
        else:
            raise RowError(f"{row_type.table}: column {field.name} is missing")
        if not field.nullable and column.null_count:
            row = column.is_null().to_pylist().index(True)
            raise RowError(f"{row_type.table}.{field.name}, row {row}: None, but every row needs one")
        columns.append(column)
    return pa.table(columns, schema=schema)


def to_table(row_type: type[Row], rows: Iterable[Row] | pa.Table) -> pa.Table:
    """Rows as an Arrow table of their schema.

    Raises:
        RowError: a value does not fit its column; says which.
    """
    if isinstance(rows, pa.Table):
        return conform(row_type, rows)
    rows = list(rows)
    for index, row in enumerate(rows):
        if not isinstance(row, row_type):
            raise RowError(f"{row_type.table}, row {index}: a {type(row).__name__}, not a {row_type.__name__}")
    schema = arrow_schema(row_type)
    columns = [_column(row_type, field, [_plain(getattr(row, field.name)) for row in rows]) for field in schema]
    return conform(row_type, pa.table(columns, schema=schema))


def sort_unique(row_type: type[Row], table: pa.Table) -> pa.Table:
    """Sorted by primary key.

    Raises:
        RowError: two rows have the same key; says which.
    """
    keys = list(row_type.primary_key)
    order = pc.sort_indices(table.select(keys), sort_keys=[(key, "ascending") for key in keys])
    table = table.take(order).combine_chunks()
    if table.num_rows > 1:
        pairs = [(table.column(key).slice(0, table.num_rows - 1), table.column(key).slice(1)) for key in keys]
        same = pc.equal(*pairs[0])
        for before, after in pairs[1:]:
            same = pc.and_(same, pc.equal(before, after))
        doubles = pc.indices_nonzero(same)
        if len(doubles):
            first = table.select(keys).slice(doubles[0].as_py(), 1).to_pylist()[0]
            raise RowError(f"{row_type.table}: {len(doubles)} rows repeat a primary key, the first of them {first}")
    return table


@cache
def _builder(hint: Any) -> Callable[[Any], Any]:
    """A function from the Python form of an Arrow value to the type of the hint."""
    if isinstance(hint, types.UnionType):
        (inner,) = [part for part in typing.get_args(hint) if part is not type(None)]
        build = _builder(inner)
        return lambda value: None if value is None else build(value)
    if typing.get_origin(hint) is Annotated:
        return _builder(typing.get_args(hint)[0])
    if typing.get_origin(hint) is list:
        build = _builder(typing.get_args(hint)[0])
        return lambda value: [build(item) for item in value]
    if dataclasses.is_dataclass(hint):
        builders = {name: _builder(h) for name, h in typing.get_type_hints(hint, include_extras=True).items()}
        make: Any = hint
        return lambda value: make(**{name: build(value[name]) for name, build in builders.items()})
    return lambda value: value


def to_rows(row_type: type[R], table: pa.Table) -> list[R]:
    """The rows of a table as their dataclasses, nested ones rebuilt."""
    columns: list[Sequence[Any]] = []
    for name, (hint, _) in documented(row_type).items():
        build = _builder(hint)
        columns.append([build(value) for value in table.column(name).to_pylist()])
    return [row_type(*values) for values in zip(*columns, strict=True)]
