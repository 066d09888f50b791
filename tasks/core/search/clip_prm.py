"""CLIP-PRM: sentence-level search by the scorer itself (a baseline of VisVM, arXiv 2412.03704)."""

from __future__ import annotations

from tasks.core.search.contract import Ask, Found, Settings, Strategy, Task
from tasks.core.search.guided import grow


def search(task: Task) -> Ask[Found]:
    """Grow an answer along the sentences that score best."""
    return grow(task, scored=True, valued=False)


def needs(settings: Settings) -> frozenset[str]:
    """The scorer; the margin too where the rule `reward` stops."""
    margin = settings.stop == "reward" and not settings.published
    return frozenset({"scorer", "margin"} if margin else {"scorer"})


clip_prm = Strategy(search, needs)
