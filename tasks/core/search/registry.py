"""Strategies by name: built-in ones, and those that installed packages register as entry points."""

from __future__ import annotations

from hashlib import sha256
from importlib.metadata import EntryPoint, entry_points
from inspect import getsourcefile
from pathlib import Path

from tasks.core.search.best_of_n import best_of_n
from tasks.core.search.clip_prm import clip_prm
from tasks.core.search.contract import Strategy
from tasks.core.search.greedy import greedy
from tasks.core.search.majority_vote import majority_vote
from tasks.core.search.mrgd import mrgd
from tasks.core.search.outside import beam, contrastive, diverse_beam
from tasks.core.search.sample import sample
from tasks.core.search.stage_beam import stage_beam
from tasks.core.search.swires import swires
from tasks.core.search.vimar import vimar
from tasks.core.search.visvm import visvm

GROUP = "visloop.strategies"
BUILT_IN: dict[str, Strategy] = {
    "greedy": greedy,
    "sample": sample,
    "best_of_n": best_of_n,
    "clip_prm": clip_prm,
    "visvm": visvm,
    "vimar": vimar,
    "mrgd": mrgd,
    "stage_beam": stage_beam,
    "swires": swires,
    "majority_vote": majority_vote,
    "beam": beam,
    "diverse_beam": diverse_beam,
    "contrastive": contrastive,
}
# Those of them whose steps draw candidates for the next sentence after the ones that were kept, and nothing else.
SENTENCE_BY_SENTENCE = frozenset({"visvm", "clip_prm", "mrgd"})


def names() -> list[str]:
    """All strategies: built-in ones first, then installed ones by name."""
    return [*BUILT_IN, *sorted(_installed())]


def grows_by_sentences(name: str) -> bool:
    """Whether a strategy grows an answer sentence by sentence; installed ones are taken to, their traces are checked."""
    return name in SENTENCE_BY_SENTENCE or name not in BUILT_IN


def find(name: str) -> Strategy:
    """A strategy by its name; an installed strategy is imported here.

    Raises:
        ValueError: for an unknown name, a name that two packages register, or a built-in name that a package takes.
        TypeError: if the registered object is no Strategy.
    """
    installed = _installed()
    if name in BUILT_IN:
        return BUILT_IN[name]
    if name not in installed:
        known = ", ".join([*BUILT_IN, *sorted(installed)])
        raise ValueError(
            f"no search strategy is called {name!r}: want one of {known}, or install a package that has it"
        )
    strategy = installed[name].load()
    if not isinstance(strategy, Strategy):
        raise TypeError(
            f"{installed[name].value} of {_package(installed[name])} is {type(strategy).__name__}, not a Strategy: put "
            '@strategy("scorer"), or what else it needs, from the module visloop on the function'
        )
    return strategy


def code_of(name: str) -> str:
    """A digest of the file that defines an installed strategy; empty for a built-in one."""
    path = None if name in BUILT_IN else getsourcefile(find(name).search)
    return sha256(Path(path).read_bytes()).hexdigest() if path else ""


def _installed() -> dict[str, EntryPoint]:
    points: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        if point.name in BUILT_IN:
            raise ValueError(
                f"{_package(point)} brings a search strategy {point.name!r}, which is built in: rename its entry point or "
                "uninstall it"
            )
        if point.name in points:
            raise ValueError(
                f"{_package(points[point.name])} and {_package(point)} both bring a search strategy {point.name!r}: "
                "uninstall one"
            )
        points[point.name] = point
    return points


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "an installed package"
