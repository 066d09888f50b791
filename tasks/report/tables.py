"""The tables of one run, as reports read them."""

from __future__ import annotations

import json
from functools import cached_property
from typing import Any

from storage import catalog, runs


class RunTables:
    """The tables of one run, through one connection: what it shows is one moment's state."""

    def __init__(self, run_id: str) -> None:
        """Open the catalog."""
        self.run_id = run_id
        self._mine = "run_id = '" + run_id.replace("'", "''") + "'"
        self._connection = catalog.connect()

    def query(self, sql: str) -> list[dict[str, Any]]:
        """Rows as dicts; `{mine}` in the text is the condition that picks this run."""
        columns, rows = catalog.query(sql.replace("{mine}", self._mine), self._connection)
        return [dict(zip(columns, row, strict=True)) for row in rows]

    def all(self, table: str) -> list[dict[str, Any]]:
        """All rows of a table that belong to the run."""
        return self.query(f"select * from {table} where {{mine}}")

    @cached_property
    def run(self) -> dict[str, Any]:
        """The run's row; from its own file where the catalog has none."""
        rows = self.all("runs")
        return rows[0] if rows else vars(runs.load_run(self.run_id))

    @cached_property
    def profile(self) -> dict[str, Any]:
        """The profile as the run resolved it."""
        profile: dict[str, Any] = json.loads(self.run["config"] or "{}")
        return profile

    @property
    def task(self) -> str:
        """captions or answers."""
        return str(self.profile.get("task", "captions"))
