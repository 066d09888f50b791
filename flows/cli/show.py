"""Commands that look at what was done: runs, show, tables, query, report. None of them changes a table."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.errors import InputError, nearest, require_one_of
from flows.cli.output import console, print_rounds, print_table
from tasks.stage.progress import duration

if TYPE_CHECKING:
    from storage.schema import Run

RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, a unique beginning of one, or `latest`.")]
FORMATS = ("table", "json", "csv", "parquet")


def runs(limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 20) -> None:
    """List the runs, newest first.

    Examples:

        visloop runs

        visloop runs --limit 5
    """
    from storage.runs import list_runs

    newest_first = list_runs()[::-1]
    if not newest_first:
        console().print("no runs yet; `visloop run demo` makes one")
        return
    lines = [
        [run.run_id, run.status, run.started_at[:16].replace("T", " "), duration(run.seconds), run.rounds, run.champion]
        for run in newest_first[:limit]
    ]
    print_table(["run", "status", "started (UTC)", "took", "rounds", "champion"], lines)
    older = len(newest_first) - limit
    if older > 0:
        console().print(f"{older} older; --limit {len(newest_first)} shows all", style="dim")


def show(name: RunName = "latest") -> None:
    """Show one run: figures and stages.

    Examples:

        visloop show latest

        visloop show 20261121-10
    """
    run = find_run(name)
    from tasks.report.run_report import run_rows, stage_lines_of

    console().print(f"{run.run_id}: {run.status}, champion {run.champion}, {duration(run.seconds)}", soft_wrap=True)
    if run.message:
        console().print(run.message)
    print_rounds(run_rows(run.run_id))
    lines = []
    for line in stage_lines_of(run.run_id):
        cached = "all" if line.cached == line.calls else f"{line.cached} of {line.calls}" if line.cached else ""
        lines.append([line.round, line.stage, line.label, duration(line.seconds), line.calls, cached, line.rows])
    console().print()
    print_table(["round", "stage", "for", "took", "calls", "cached", "rows"], lines)
    from storage.runs import run_folder

    report_path = run_folder(run.run_id) / "report.html"
    console().print(
        f"report: {report_path}" if report_path.is_file() else f"no report yet: visloop report {run.run_id}"
    )


def report(name: RunName = "latest") -> None:
    """Write a run's report, one HTML file.

    It is written at the end of every run; this makes it anew and prints its path. The file needs no other.

    Examples:

        visloop report latest
    """
    run = find_run(name)
    from tasks.report.run_report import write_report

    typer.echo(write_report(run.run_id))


def tables(
    name: Annotated[str | None, typer.Argument(metavar="TABLE", help="Show this table's columns.")] = None,
) -> None:
    """List the tables, or one's columns.

    What `visloop query` can read.

    Examples:

        visloop tables

        visloop tables metrics
    """
    from storage import catalog
    from storage.schema import ROW_TYPES, arrow_schema

    if name is None:
        lines = []
        for table, row_type in ROW_TYPES.items():
            _, [[count]] = catalog.query(f"select count(*) from {table}")
            lines.append([table, count, (row_type.__doc__ or "").strip()])
        print_table(["table", "rows", "one row is"], lines)
        return
    require_one_of("table", name, ROW_TYPES)
    fields = [
        [f.name, str(f.type), (f.metadata or {}).get(b"doc", b"").decode()] for f in arrow_schema(ROW_TYPES[name])
    ]
    have = {field[0] for field in fields}
    fields = [
        [c, t, "of the run that used it"] for c, t in (("run_id", "string"), ("round", "int64")) if c not in have
    ] + fields
    print_table(["column", "type", "meaning"], fields)


def query(
    sql: Annotated[
        str, typer.Argument(metavar="SQL", help="One read-only statement; `visloop tables` lists the tables.")
    ],
    output: Annotated[str, typer.Option("--format", help="table, json, csv or parquet.")] = "table",
    path: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file.")] = None,
) -> None:
    """Query the tables of all runs, in SQL.

    DuckDB's SQL, reading only; `visloop tables` lists what there is.

    Examples:

        visloop query "select subject, metric, value from metrics"

        visloop query "from scores" --format parquet -o scores.parquet
    """
    require_one_of("--format", output, FORMATS)
    from storage import catalog

    with _explained():
        if output == "table" and path is None:
            print_table(*catalog.query(sql))
            return
    if output == "parquet" and path is None and sys.stdout.isatty():
        raise InputError("parquet is not text: give --output FILE, or send it to a file with >")
    from flows.cli.query_formats import encode

    with _explained():
        data = encode(catalog.query_arrow(sql), "csv" if output == "table" else output)
    if path is None:
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
        return
    path.write_bytes(data)
    typer.echo(f"{path}: {len(data):,} bytes", err=True)


def find_run(name: str) -> Run:
    """The run with this id, a unique beginning of it, or `latest`.

    Raises:
        InputError: there is no such run, or more than one.
    """
    from storage.runs import list_runs

    known = list_runs()
    if not known:
        raise InputError("no runs yet; `visloop run demo` makes one")
    if name == "latest":
        return known[-1]
    matches: list[Any] = [run for run in known if run.run_id == name] or [r for r in known if r.run_id.startswith(name)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        ids = ", ".join(run.run_id for run in matches[:5])
        raise InputError(f"{name!r} is the beginning of {len(matches)} runs: {ids}; give more of it")
    near = nearest(name, [run.run_id for run in known])
    raise InputError(f"no run {name!r}{near}`visloop runs` lists them, the newest is {known[-1].run_id}")


@contextmanager
def _explained() -> Iterator[None]:
    """Turn an error of the SQL into one that lists the tables."""
    from storage.catalog import NotAQuery
    from storage.schema import ROW_TYPES

    try:
        yield
    except Exception as error:
        # DuckDB's own errors are recognized by name: only the catalog imports DuckDB.
        if not (isinstance(error, NotAQuery) or type(error).__module__.lstrip("_").startswith("duckdb")):
            raise
        tables = f"tables: {', '.join(ROW_TYPES)}; columns: visloop tables TABLE"
        raise InputError(f"{str(error).strip()}\n  {tables}") from error
