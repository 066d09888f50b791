"""The compare command: strategies over the same images, at equal measured work. An experiment with options of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from flows.cli.errors import InputError
from flows.cli.experiment import run_experiment
from flows.cli.run import Overrides, ProfileName, load

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

Controls = Annotated[
    bool,
    typer.Option(
        help="Beside visvm and vimar: random numbers in place of V, V of gamma 0, CLIP-PRM, greedy with the same end, best "
        "of n at equal tokens."
    ),
]


def compare(
    profile: ProfileName,
    strategies: Strategies = None,
    budgets: Budgets = None,
    images: Images = None,
    tokens: Tokens = None,
    controls: Controls = True,
    overrides: Overrides = None,
) -> None:
    """Compare strategies at equal measured work.

    Searches the same images with each of them at several numbers of candidates. Prints what each reaches within the same
    decoded tokens; a page has the plot. The same as `visloop experiment compare`. What was searched before is not searched
    again.

    Examples:

        visloop compare demo

        visloop compare demo --strategies best_of_n,visvm:end=vote,vimar --budgets 1,4 --images 100
    """
    settings = [*(overrides or ()), *([] if images is None else [f"evaluate.images={images}"])]
    loaded = load(profile, settings)
    given = split_specs(strategies or ())
    given += [f"budgets={budgets}"] if budgets else []
    given += [f"tokens={tokens}"] if tokens else []
    given += [] if controls else ["controls=no"]
    from flows.experiments.compare import enter, read_request

    request = read_request(given)
    enter(loaded, request.strategies, request.budgets, controls)  # a wrong one is refused before anything starts
    run_experiment("compare", loaded, given=given, overrides=settings)


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
