"""docs/tables.md agrees with storage.schema."""

from __future__ import annotations

from benchmarks.document_tables import PAGE, render
from storage.schema import ROW_TYPES


def test_the_page_of_the_tables_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "run: python -m benchmarks.document_tables"


def test_every_table_has_a_section() -> None:
    assert all(f"\n## {table}\n" in render() for table in ROW_TYPES)
