"""How much a sentence repeats: a value of one sentence and the image can't see what was said before."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.core.text import words

STOP_WORDS = frozenset(
    words(
        "a an and are as at be been but by can for from has have he her his in into is it its of on or she that the their "
        "there these they this those to was were which while who with"
    )
)


def content_words(text: str) -> frozenset[str]:
    """The set of words that carry meaning, in lower case."""
    return frozenset(words(text)) - STOP_WORDS


def overlap(text: str, said: Sequence[str]) -> float:
    """The largest Jaccard overlap, 0 to 1, of the text's content words with those of any sentence of `said`."""
    own = content_words(text)
    return max((_jaccard(own, content_words(sentence)) for sentence in said), default=0.0)


def _jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other) if one | other else 0.0
