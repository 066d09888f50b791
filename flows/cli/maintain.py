"""Commands that maintain the installation and the store: doctor, verify, gc."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.errors import FAILED
from flows.cli.output import console, print_table


def doctor(
    profile: Annotated[str, typer.Option(help="Profile whose models are checked.")] = "demo",
) -> None:
    """Check this machine.

    Versions, device, disk, store, Prefect's server, fonts, models; where something is missing, with what to do next.

    Examples:

        visloop doctor

        visloop doctor --profile visvm-llava-next-7b
    """
    from flows.cli.doctor import all_checks

    checks = list(all_checks(profile))
    print_table(["", "check", "result", "next"], [list(check) for check in checks], cut=300)
    if any(check.status == "fail" for check in checks):
        raise typer.Exit(FAILED)


def verify() -> None:
    """Hash the whole store again.

    What is damaged or missing is listed; the next run that needs it computes it anew.

    Examples:

        visloop verify
    """
    from storage.upkeep import verify as check

    report = check()
    console().print(f"{report.artifacts} artifacts, {_size(report.size)} hashed")
    for line in report.damaged:
        console().print(f"damaged: {line}", soft_wrap=True)
    if not report.whole:
        console().print("the next run that needs one of these computes it anew; `visloop gc` sweeps the rest")
        raise typer.Exit(FAILED)
    console().print("all whole")


def gc(
    keep_runs: Annotated[
        int | None, typer.Option(min=0, help="Keep this many of the newest runs; all, if left out.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Remove what nothing refers to.

    With --keep-runs also older runs, and what only they used.

    Examples:

        visloop gc --dry-run

        visloop gc --keep-runs 5
    """
    from storage.upkeep import collect_garbage

    report = collect_garbage(keep_runs=keep_runs, dry_run=dry_run)
    verb = "would remove" if dry_run else "removed"
    console().print(
        f"{verb} {len(report.runs)} runs, {report.records} cache records, {report.objects} objects, "
        f"{report.unfinished} unfinished files: {_size(report.size)}",
        soft_wrap=True,
    )


def _size(count: float) -> str:
    """Bytes as people read them."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
