"""Write docs/tables.md from the row types: `python -m benchmarks.document_tables` (`--check` only compares)."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa

from storage.schema import ROW_TYPES, Row, Run, StageRun, arrow_schema, documented

PAGE = Path(__file__).resolve().parent.parent / "docs" / "tables.md"
HEAD = """\
# The tables

Generated from `storage/schema.py` by `python -m benchmarks.document_tables`; don't edit.

Every table is a DuckDB view over all runs: `visloop query "select * from metrics"`, or in Python
`storage.catalog.query(sql)`. Each has `run_id` and `round` beside the columns below, so a row of an artifact that two
runs share shows once for each. Names and columns are stable: a change that is not an added nullable column raises the
table's version. A column is never empty (`NULL`) unless it says *or NULL*, and what that means.

"""


def render() -> str:
    """The page."""
    index = "".join(f"| [`{name}`](#{name}) | {_sentence(row_type)} |\n" for name, row_type in ROW_TYPES.items())
    return HEAD + "| table | one row is |\n|---|---|\n" + index + "".join(map(_section, ROW_TYPES.values()))


def _section(row_type: type[Row]) -> str:
    """One table: what a row is, what identifies it, its columns."""
    schema = arrow_schema(row_type)
    key = ", ".join(f"`{name}`" for name in row_type.primary_key)
    lines = [
        f"\n## {row_type.table}\n",
        f"{_sentence(row_type)}",
        f"Version {row_type.version}. One row for each {key}.\n",
    ]
    lines += ["| column | type | meaning |", "|---|---|---|"]
    if row_type not in (Run, StageRun):
        lines += [
            "| `run_id` | string | the run that used it |",
            "| `round` | int64 | its round; 0: before the first |",
        ]
    for name, (_, meaning) in documented(row_type).items():
        field = schema.field(name)
        kind = _kind(field.type) + (" or NULL" if field.nullable else "")
        lines.append(f"| `{name}` | {kind} | {meaning.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


def _sentence(row_type: type[Row]) -> str:
    """The row type's first line."""
    return (row_type.__doc__ or "").strip().partition("\n")[0]


def _kind(kind: pa.DataType) -> str:
    """An Arrow type in a reader's words."""
    if pa.types.is_list(kind):
        return f"list of {_kind(kind.value_type)}"
    if pa.types.is_struct(kind):
        return "struct of " + ", ".join(f"{field.name}: {_kind(field.type)}" for field in kind)
    return {"large_binary": "bytes"}.get(str(kind), str(kind))


def main() -> None:
    """Write the page, or say that it is out of date."""
    if "--check" in sys.argv[1:]:
        if not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != render():
            sys.exit(f"{PAGE} is out of date: python -m benchmarks.document_tables")
        return
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main()
