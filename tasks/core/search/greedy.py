"""The policy's greedy answer."""

from __future__ import annotations

from tasks.core.search.contract import SearchResult, Task, strategy
from tasks.core.search.options import own_options
from tasks.core.search.ranking import choose_answer
from tasks.core.search.requests import ANSWER, Search, propose


@strategy()
def greedy(task: Task) -> Search[SearchResult]:
    """One answer of the likeliest tokens. Stops as the policy does: `end`, or `length` at max_new_tokens."""
    own_options(task.settings)
    candidates = yield from propose(None, (0.0,), max_tokens=task.settings.max_new_tokens, until=ANSWER, keep=False)
    return choose_answer(candidates, 0)
