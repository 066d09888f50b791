"""A query's result as JSON, CSV or Parquet."""

from __future__ import annotations

import base64
import io
import json
import math
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet


def encode(table: pa.Table, kind: str) -> bytes:
    """The bytes of a table in one of the formats."""
    buffer = io.BytesIO()
    if kind == "parquet":
        pyarrow.parquet.write_table(table, buffer)
    elif kind == "csv":
        pyarrow.csv.write_csv(_flat(table), buffer)
    else:
        rows = [_json(row) for row in table.to_pylist()]
        buffer.write(json.dumps(rows, indent=2, ensure_ascii=False, default=str, allow_nan=False).encode() + b"\n")
    return buffer.getvalue()


def _json(value: Any) -> Any:
    """A value as JSON can hold it: not-a-number is null, bytes are base64."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {key: _json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_json(item) for item in value]
    return value


def _flat(table: pa.Table) -> pa.Table:
    """The table with nested and binary columns as JSON text: CSV has no word for them."""
    for index, field in enumerate(table.schema):
        if pa.types.is_nested(field.type) or pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type):
            texts = [None if v is None else json.dumps(_json(v), default=str) for v in table.column(index).to_pylist()]
            table = table.set_column(index, field.name, pa.array(texts, pa.string()))
    return table
