"""CLIP-PRM: sentence-level search by the scorer itself (a baseline of VisVM, arXiv 2412.03704)."""

from __future__ import annotations

from tasks.core.search.contract import SearchResult, Settings, Strategy, Task
from tasks.core.search.guided import grow
from tasks.core.search.requests import Search


def search(task: Task) -> Search[SearchResult]:
    """Grow an answer along the sentences with the best scores."""
    return grow(task, scored=True, valued=False)


def needs(settings: Settings) -> frozenset[str]:
    """The scorer; the margin too, to filter by it or where it is what ending is worth."""
    filtered = settings.filter == "margin" and not settings.published
    return frozenset({"scorer", "margin"} if filtered or settings.lacks_end_value else {"scorer"})


clip_prm = Strategy(search, needs)
