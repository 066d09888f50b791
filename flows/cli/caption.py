"""The caption command: describe images, and show how each caption was found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.errors import InputError, require_one_of
from flows.cli.output import console
from flows.cli.run import Overrides

if TYPE_CHECKING:
    from tasks.search.caption import Described

PAGE = "explain.html"

Images = Annotated[
    list[Path],
    typer.Argument(
        metavar="IMAGE...", help="Image files, and folders, searched through all their levels.", exists=True
    ),
]
Strategy = Annotated[
    str,
    typer.Option(
        metavar="NAME[:KEY=VALUE,...]", help="How to decode: greedy, best_of_n:by=value, vimar:candidates=4, ..."
    ),
]
Checkpoint = Annotated[
    str | None,
    typer.Option(help="In place of the profile's policy: a folder, a hub id, or champion (of its latest run)."),
]
Candidates = Annotated[int | None, typer.Option(min=1, help="Candidates a step; short for --set search.candidates=N.")]
Explain = Annotated[
    bool, typer.Option("--explain", help="Show every candidate and which was chosen, here and as an HTML page.")
]
Page = Annotated[
    Path | None,
    typer.Option("--output", "-o", help=f"File or folder for the page of --explain; {PAGE} if left out."),
]
Format = Annotated[str, typer.Option("--format", help="text or json; json has the whole trace with --explain.")]


def caption(  # noqa: PLR0913 - a command's parameters are its options
    images: Images,
    strategy: Strategy = "greedy",
    profile: Annotated[str, typer.Option(help="Profile whose models and settings are used.")] = "demo",
    checkpoint: Checkpoint = None,
    prompt: Annotated[str | None, typer.Option(help="The prompt; the profile's first one if left out.")] = None,
    candidates: Candidates = None,
    overrides: Overrides = None,
    explain: Explain = False,
    page: Page = None,
    form: Format = "text",
) -> None:
    """Describe images.

    With the profile's policy, the champion of its latest run, or any checkpoint; greedy, or by a search.

    Examples:

        visloop caption photo.jpg

        visloop caption ~/pictures --strategy visvm --checkpoint champion --format json

        visloop caption photo.jpg --strategy vimar:candidates=4 --explain --output shown
    """
    require_one_of("--format", form, ("text", "json"))
    if page is not None and not explain:
        raise InputError(f"--output {page} is for the page of --explain: add --explain, or leave it out")
    from flows.profiles.loading import load_profile
    from tasks.search.caption import strategies

    require_one_of("--strategy", strategy.partition(":")[0], strategies())
    chosen = [] if candidates is None else [f"search.candidates={candidates}"]
    loaded = load_profile(profile, [*(overrides or ()), *chosen])
    from flows.describe import describe
    from tasks.report.explain_page import trace_of

    target = _page_path(page) if explain else None
    described = describe(images, loaded, strategy, checkpoint=checkpoint, prompt=prompt, page=target)
    if form == "json":
        records = [
            image.as_dict() | ({"trace": trace_of(image)} if explain and image.result else {}) for image in described
        ]
        typer.echo(json.dumps(records, indent=2, ensure_ascii=False))
    else:
        _print(described, explain)
    bad = sum(image.result is None for image in described)
    if target is not None and bad < len(described):
        typer.echo(f"how each caption was found: {target}", err=form == "json")
    if bad:
        raise InputError(f"{bad} of {len(described)} images could not be read")


def _page_path(given: Path | None) -> Path:
    """The page's file; a folder is given without a suffix, or is there."""
    if given is None:
        return Path(PAGE)
    return given if given.suffix.lower() in (".html", ".htm") and not given.is_dir() else given / PAGE


def _print(described: list[Described], explain: bool) -> None:
    """Captions as text; errors go to standard error."""
    for image in described:
        if image.result is None:
            typer.echo(image.error, err=True)
        elif explain:
            _print_tree(image, f"{image.path}: {image.result.text}")
        else:
            typer.echo(f"{image.path}: {image.result.text}")


def _print_tree(image: Described, title: str) -> None:
    """Steps and candidates; in a pipe or a file as lines that begin with * where a candidate was chosen."""
    from tasks.report.explain_page import explained

    out = console()
    if not out.is_terminal:
        typer.echo(title)
        for step, lines in explained(image):
            typer.echo(f"  {step}")
            for chosen, line in lines:
                typer.echo(f"  {'*' if chosen else ' '} {line}")
        return
    from rich.text import Text
    from rich.tree import Tree

    root = Tree(Text(title, style="bold"), guide_style="dim")
    for step, lines in explained(image):
        branch = root.add(Text(step))
        for chosen, line in lines:
            branch.add(Text(f"{'✓' if chosen else ' '} {line}", style="green" if chosen else "dim"))
    out.print(root)
