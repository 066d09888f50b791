"""The compare command: strategies over the same images, at equal measured work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.errors import InputError
from flows.cli.output import console, print_table
from flows.cli.run import Overrides, ProfileName, load, start_flow

if TYPE_CHECKING:
    from tasks.report.comparison import Comparison

Strategies = Annotated[
    list[str] | None,
    typer.Option(metavar="SPEC,SPEC", help="NAME or NAME:key=value,key=value; all that suit captions if left out."),
]
Budgets = Annotated[
    str | None,
    typer.Option(metavar="K,K", help="Candidates to try; 1,2,4,8,16 and the profile's own number if left out."),
]
Images = Annotated[int | None, typer.Option(min=2, help="Benchmark images; short for --set evaluate.images=N.")]
Tokens = Annotated[
    float | None,
    typer.Option(
        min=1, help="Decoded tokens a caption to compare at; those of visvm, at the profile's candidates, if left out."
    ),
]


def compare(
    profile: ProfileName,
    strategies: Strategies = None,
    budgets: Budgets = None,
    images: Images = None,
    tokens: Tokens = None,
    overrides: Overrides = None,
) -> None:
    """Compare strategies at equal measured work.

    Searches the same images with each of them at several numbers of candidates. Prints what each reaches within the same
    decoded tokens; a page has the plots against tokens and seconds. What was searched before is not searched again.

    Examples:

        visloop compare demo

        visloop compare demo --strategies best_of_n,visvm:stop=vote,vimar --budgets 1,4 --images 100
    """
    more = [] if images is None else [f"evaluate.images={images}"]
    loaded = load(profile, [*(overrides or ()), *more])
    widths = _widths(budgets)
    specs = split_specs(strategies or ())
    from flows.experiments.contenders import enter

    enter(loaded, specs, widths)  # a wrong one is told before anything starts

    def start() -> str:
        from flows.experiments.comparison import comparison

        return comparison(loaded, specs, widths, tokens)

    run_id = start_flow(start)
    from storage.runs import run_folder
    from tasks.report.comparison import PAGE, compared

    print_comparison(compared(run_id, tokens))
    console().print(f"run {run_id}, plots {run_folder(run_id) / PAGE}", soft_wrap=True)


def split_specs(given: Sequence[str]) -> list[str]:
    """Specs separated by commas; `key=value` without a name of its own belongs to the spec before it.

    Raises:
        InputError: the first piece is a setting.
    """
    specs: list[str] = []
    for text in given:
        for piece in filter(None, (part.strip() for part in text.split(","))):
            if "=" not in piece or ":" in piece.partition("=")[0]:
                specs.append(piece)
            elif specs and ":" in specs[-1]:
                specs[-1] += f",{piece}"
            else:
                raise InputError(
                    f"--strategies {text!r}: {piece!r} is a setting without a strategy; write NAME:{piece}"
                )
    return specs


def _widths(given: str | None) -> tuple[int, ...]:
    try:
        widths = tuple(int(part) for part in given.split(",")) if given else ()
    except ValueError:
        widths = (0,)
    if any(width < 1 for width in widths):
        raise InputError(f"--budgets {given!r}: want numbers of candidates, at least 1, as 1,2,4")
    return widths


def print_comparison(found: Comparison) -> None:
    """What each strategy reaches within the same tokens."""
    from tasks.report.comparison import COLUMNS

    lines = []
    for point in found.equal:
        cells = [f"{point.cells[metric].text} ({point.cells[metric].interval})" for metric in COLUMNS]
        over = " (over)" if point.tokens > found.budget else ""
        work = [f"{point.tokens:.1f}{over}", f"{1000 * point.seconds:.1f}"]
        lines.append([point.spec, point.width, *cells, *work, found.on_fronts(point.name)])
    titles = [column.title for column in COLUMNS.values()]
    print_table(["strategy", "K", *titles, "tokens", "ms", "Pareto front"], lines)
    images = max((point.cells["chair_s"].n for point in found.points), default=0)
    console().print(
        f"{images} images; the most candidates (K) within {found.budget:.1f} decoded tokens a caption; CHAIR: lower is better",
        style="dim",
    )
    cached = sum(point.cached for point in found.points)
    if cached:
        console().print(
            f"{cached} of {len(found.points)} searches, and their seconds, are of earlier runs", style="dim"
        )
