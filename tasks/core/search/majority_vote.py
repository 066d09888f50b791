"""Majority vote over short answers (self-consistency), compared as VQA compares them."""

from __future__ import annotations

import re
from collections import Counter

from tasks.core.search.contract import SearchResult, Task, strategy
from tasks.core.search.options import own_options
from tasks.core.search.ranking import choose_answer, non_empty
from tasks.core.search.requests import ANSWER, Search, propose
from tasks.core.text import words

_NUMBERS = {
    word: str(number) for number, word in enumerate(words("zero one two three four five six seven eight nine ten"))
}
_NUMBERS["none"] = "0"  # as in VQA
_TOKEN = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?|[^\W_]+(?:'[^\W_]+)*")


@strategy()
def majority_vote(task: Task) -> Search[SearchResult]:
    """One answer for each temperature, at most option `max_tokens` (max_new_tokens) long; the most frequent one wins.

    Of equally frequent ones the earliest wins; an empty answer has no vote if another is not empty. The text is the first
    answer of the winning group, unchanged. Stops as that answer ended: `end`, or `length`.
    """
    settings = task.settings
    limit = own_options(settings, max_tokens=settings.max_new_tokens)["max_tokens"]
    candidates = yield from propose(None, settings.temperatures, max_tokens=limit, until=ANSWER, keep=False)
    keys = {i: normalise(candidates[i].text) for i in non_empty(candidates)}
    votes = Counter(keys.values())
    return choose_answer(candidates, max(keys, key=lambda i: (votes[keys[i]], -i)))


def normalise(answer: str) -> str:
    """An answer as it is compared: lower case, no articles, punctuation in numbers only, number words as digits."""
    plain = re.sub(r"(?<=\d),(?=\d)", "", answer.lower())
    tokens = [token for token in _TOKEN.findall(plain) if token not in ("a", "an", "the")]
    return " ".join(_NUMBERS.get(token, token) for token in tokens)
