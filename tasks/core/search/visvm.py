"""VisVM: sentence-level search by a value model (arXiv 2412.03704, section 3.3)."""

from __future__ import annotations

from tasks.core.search.contract import Ask, Found, Settings, Strategy, Task
from tasks.core.search.guided import grow


def search(task: Task) -> Ask[Found]:
    """Grow an answer along the sentences of the largest value; scores are asked for where the rule `reward` stops."""
    return grow(task, scored="scorer" in needs(task.settings), valued=True)


def needs(settings: Settings) -> frozenset[str]:
    """The value model; the scorer and the margin too where the rule `reward` stops."""
    rewarded = settings.stop == "reward" and not settings.published
    return frozenset({"value", "scorer", "margin"} if rewarded else {"value"})


visvm = Strategy(search, needs)
