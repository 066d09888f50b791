"""Majority vote over short answers (self-consistency), compared as VQA compares them."""

from __future__ import annotations

import re
from collections import Counter

from tasks.core.search.contract import ANSWER, Ask, Found, Task, say, strategy
from tasks.core.search.options import own_options
from tasks.core.search.ranking import answered, speaking
from tasks.core.text import words

_NUMBERS = {
    word: str(number) for number, word in enumerate(words("zero one two three four five six seven eight nine ten"))
}
_NUMBERS["none"] = "0"  # as VQA takes it
_TOKEN = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?|[^\W_]+(?:'[^\W_]+)*")


@strategy()
def majority_vote(task: Task) -> Ask[Found]:
    """One answer a temperature, at most option `max_tokens` long (else max_new_tokens); the most frequent wins.

    On equal terms the earliest wins; an empty answer has no vote where another is there. The text is the first answer of the
    winning group, as it was said. Stops as that one ended: `end`, or `length`.
    """
    settings = task.settings
    limit = own_options(settings, max_tokens=settings.max_new_tokens)["max_tokens"]
    candidates = yield from say(None, settings.temperatures, max_tokens=limit, until=ANSWER, keep=False)
    keys = {i: normalise(candidates[i].text) for i in speaking(candidates)}
    votes = Counter(keys.values())
    return answered(candidates, max(keys, key=lambda i: (votes[keys[i]], -i)))


def normalise(answer: str) -> str:
    """An answer to compare: lower case, no articles, no punctuation but in numbers, number words as digits."""
    plain = re.sub(r"(?<=\d),(?=\d)", "", answer.lower())
    tokens = [token for token in _TOKEN.findall(plain) if token not in ("a", "an", "the")]
    return " ".join(_NUMBERS.get(token, token) for token in tokens)
