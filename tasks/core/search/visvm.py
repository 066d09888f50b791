"""VisVM: sentence-level search by a value model (arXiv 2412.03704, section 3.3)."""

from __future__ import annotations

from tasks.core.search.contract import SearchResult, Settings, Strategy, Task
from tasks.core.search.guided import grow
from tasks.core.search.requests import Search


def search(task: Task) -> Search[SearchResult]:
    """Grow an answer along the sentences with the largest values; scores are requested for filter `margin` only."""
    return grow(task, scored="scorer" in needs(task.settings), valued=True)


def needs(settings: Settings) -> frozenset[str]:
    """The value model; what ending is worth where V is compared with it; the scorer and the margin to filter by it."""
    needed = {"value"}
    if settings.lacks_end_value:
        needed |= {"end_value"}
    if settings.filter == "margin" and not settings.published:
        needed |= {"scorer", "margin"}
    return frozenset(needed)


visvm = Strategy(search, needs)
