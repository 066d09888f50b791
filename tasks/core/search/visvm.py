"""VisVM: sentence-level search by a value model (arXiv 2412.03704, section 3.3)."""

from __future__ import annotations

from tasks.core.search.contract import SearchResult, Settings, Strategy, Task
from tasks.core.search.guided import grow
from tasks.core.search.requests import Search


def search(task: Task) -> Search[SearchResult]:
    """Grow an answer along the sentences with the largest values; scores are requested for stop rule `reward` only."""
    return grow(task, scored="scorer" in needs(task.settings), valued=True)


def needs(settings: Settings) -> frozenset[str]:
    """The value model; for stop rule `reward` the scorer and the margin too."""
    rewarded = settings.stop == "reward" and not settings.published
    return frozenset({"value", "scorer", "margin"} if rewarded else {"value"})


visvm = Strategy(search, needs)
