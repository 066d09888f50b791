"""One sampled answer."""

from __future__ import annotations

from tasks.core.search.contract import SearchResult, Task, strategy
from tasks.core.search.options import own_options
from tasks.core.search.ranking import choose_answer
from tasks.core.search.requests import ANSWER, Search, propose


@strategy()
def sample(task: Task) -> Search[SearchResult]:
    """One answer at option `temperature`; by default at the last of the temperatures that is above 0.

    Stops as the policy does: `end`, or `length` at max_new_tokens.

    Raises:
        ValueError: if no temperature is above 0.
    """
    settings = task.settings
    temperature = own_options(settings, temperature=None)["temperature"]
    if temperature is None:
        temperature = next((above for above in reversed(settings.temperatures) if above > 0), 0.0)
    if temperature <= 0:
        raise ValueError("sample has no temperature above 0: give one, or use the strategy greedy")
    candidates = yield from propose(None, (temperature,), max_tokens=settings.max_new_tokens, until=ANSWER, keep=False)
    return choose_answer(candidates, 0)
