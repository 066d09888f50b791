"""The policy's likeliest answer."""

from __future__ import annotations

from tasks.core.search.contract import ANSWER, Ask, Found, Task, say, strategy
from tasks.core.search.options import own_options
from tasks.core.search.ranking import answered


@strategy()
def greedy(task: Task) -> Ask[Found]:
    """One answer, each token the likeliest. Stops as the policy does: `end`, or `length` at max_new_tokens."""
    own_options(task.settings)
    candidates = yield from say(None, (0.0,), max_tokens=task.settings.max_new_tokens, until=ANSWER, keep=False)
    return answered(candidates, 0)
