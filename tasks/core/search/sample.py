"""One sampled answer."""

from __future__ import annotations

from tasks.core.search.contract import ANSWER, Ask, Found, Task, say, strategy
from tasks.core.search.options import own_options
from tasks.core.search.ranking import answered


@strategy()
def sample(task: Task) -> Ask[Found]:
    """One answer at option `temperature`; without it at the last of the temperatures that is above 0.

    Stops as the policy does: `end`, or `length` at max_new_tokens.

    Raises:
        ValueError: if no temperature is above 0.
    """
    settings = task.settings
    temperature = own_options(settings, temperature=None)["temperature"]
    if temperature is None:
        temperature = next((one for one in reversed(settings.temperatures) if one > 0), 0.0)
    if temperature <= 0:
        raise ValueError("sample has no temperature above 0: give one, or use the strategy greedy")
    candidates = yield from say(None, (temperature,), max_tokens=settings.max_new_tokens, until=ANSWER, keep=False)
    return answered(candidates, 0)
