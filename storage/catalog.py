"""SQL over everything that is kept: one DuckDB view for each table, over all runs, with `run_id` and `round`.

The only importer of duckdb. The connection is in memory and can read the store's folder and nothing else; `query`
accepts statements that read. An artifact that several runs share shows once for each run and round; the pieces of
shards don't show, the tables merged from them do.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from storage import objects, runs
from storage.artifacts import ArtifactRef, reference
from storage.rows import to_table
from storage.schema import ROW_TYPES, Row, Run, StageRun, arrow_schema

_READING = frozenset({"SELECT", "EXPLAIN"})
_RECORDS = (Run.table, StageRun.table)


class NotAQuery(ValueError):
    """A statement that is not a single one that reads."""


def _shown(stages: Iterable[StageRun]) -> dict[str, dict[tuple[str, int, str], ArtifactRef]]:
    """For each table the artifacts to show: (run, round, digest) -> reference."""
    shown: dict[str, dict[tuple[str, int, str], ArtifactRef]] = {}
    for call in stages:
        if call.shard is not None:
            continue
        for name, value in json.loads(call.outputs).items():
            ref = reference(value)
            # Under another name than its table's, an output is a step on the way: its rows come again, finished.
            fits = ref.kind == name and ref.is_table and ref.schema_version == ROW_TYPES[ref.kind].version
            if fits and ref.path.exists():
                shown.setdefault(ref.kind, {})[(call.run_id, call.round, ref.digest)] = ref
    return shown


def _text(value: str | Path) -> str:
    """An SQL string literal."""
    return "'" + str(value).replace("'", "''") + "'"


def _name(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


_SQL_TYPES = {"string": "VARCHAR", "int64": "BIGINT", "double": "DOUBLE", "bool": "BOOLEAN", "large_binary": "BLOB"}


def _sql_type(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"{_sql_type(kind.value_type)}[]"
    if pa.types.is_struct(kind):
        return f"STRUCT({', '.join(f'{_name(field.name)} {_sql_type(field.type)}' for field in kind)})"
    return _SQL_TYPES[str(kind)]


def _view(row_type: type[Row], refs: dict[tuple[str, int, str], ArtifactRef]) -> str:
    fields = arrow_schema(row_type)
    nulls = ", ".join(f"NULL::{_sql_type(field.type)} AS {_name(field.name)}" for field in fields)
    if not refs:
        return f"SELECT NULL::VARCHAR AS run_id, NULL::BIGINT AS round, {nulls} WHERE false"
    files = ", ".join(_text(path) for path in sorted({str(ref.path) for ref in refs.values()}))
    columns = ", ".join(f"rows.{_name(name)}" for name in fields.names)
    # The empty half brings columns that were added after the files were written.
    return (
        f"SELECT shown.run_id, shown.round, {columns} "
        f"FROM (SELECT * FROM read_parquet([{files}], filename='_file', union_by_name=true) "
        f"UNION ALL BY NAME SELECT {nulls} WHERE false) AS rows "
        f"JOIN _shown AS shown ON shown.kind = {_text(row_type.table)} AND shown.file = rows._file"
    )


def connect(home: Path | None = None) -> duckdb.DuckDBPyConnection:
    """An in-memory connection with a view for each table of `storage.schema`.

    It shows what was recorded when it was made; connect again to see more.

    Args:
        home: the store's folder; None: `storage.artifacts.home()`.

    Raises:
        ValueError: `home` is another folder than the store in use.
    """
    if home is not None and home.absolute() != objects.home():
        raise ValueError(f"the store in use is {objects.home()}; set VISLOOP_HOME={home} to look into that one")
    known = runs.list_runs()
    stages = [call for run in known for call in runs.stage_runs(run.run_id)]
    shown = _shown(stages)
    connection = duckdb.connect()
    rows = [(kind, *key[:2], str(ref.path)) for kind, refs in shown.items() for key, ref in refs.items()]
    _create(connection, "_shown", pa.table(
        [pa.array(column) for column in zip(*rows, strict=True)] if rows else [pa.array([], t) for t in _SHOWN.types],
        schema=_SHOWN,
    ))  # fmt: skip
    _create(connection, Run.table, to_table(Run, known))
    _create(connection, StageRun.table, to_table(StageRun, stages))
    for name, row_type in ROW_TYPES.items():
        if name not in _RECORDS:
            connection.execute(f"CREATE VIEW {_name(name)} AS {_view(row_type, shown.get(name, {}))}")
    _lock(connection)
    return connection


_SHOWN = pa.schema([("kind", pa.string()), ("run_id", pa.string()), ("round", pa.int64()), ("file", pa.string())])


def _create(connection: duckdb.DuckDBPyConnection, name: str, table: pa.Table) -> None:
    connection.register("_arriving", table)
    connection.execute(f"CREATE TABLE {_name(name)} AS SELECT * FROM _arriving")
    connection.unregister("_arriving")


def _lock(connection: duckdb.DuckDBPyConnection) -> None:
    """No file but the store's objects, no network, no extensions, and no way to change that."""
    connection.execute(f"SET allowed_directories = [{_text(str(objects.home() / 'objects') + '/')}]")
    for setting in (
        "enable_external_access = false",
        "autoinstall_known_extensions = false",
        "autoload_known_extensions = false",
        "python_enable_replacements = false",
        "lock_configuration = true",
    ):
        connection.execute(f"SET {setting}")


def _checked(sql: str, connection: duckdb.DuckDBPyConnection) -> str:
    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise NotAQuery(f"{len(statements)} statements; one SELECT is accepted")
    kind = statements[0].type.name
    executes_what_it_explains = kind == "EXPLAIN" and "analyze" in sql.lower()
    if kind not in _READING or executes_what_it_explains:
        raise NotAQuery(f"a {kind} statement; only such that read are accepted: SELECT, FROM, DESCRIBE, SUMMARIZE")
    return sql


def query(sql: str, connection: duckdb.DuckDBPyConnection | None = None) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Column names and rows of one reading statement.

    Raises:
        NotAQuery: it is not a single one, or it does not only read.
        duckdb.Error: the SQL is wrong; DuckDB's words.
    """
    connection = connection or connect()
    cursor = connection.execute(_checked(sql, connection))
    columns = [column[0] for column in cursor.description or []]
    return columns, cursor.fetchall()


def query_arrow(sql: str, connection: duckdb.DuckDBPyConnection | None = None) -> pa.Table:
    """The same as an Arrow table; errors as `query`'s."""
    connection = connection or connect()
    return connection.sql(_checked(sql, connection)).to_arrow_table()
