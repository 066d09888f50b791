"""How much a sentence repeats: V of a sentence and the image alone can't see the sentences before it."""

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
    """The words of a text without stop words, in lower case."""
    return frozenset(words(text)) - STOP_WORDS


def overlap(text: str, sentences: Sequence[str]) -> float:
    """The largest Jaccard overlap, 0 to 1, of the text's content words with those of any of `sentences`."""
    own = content_words(text)
    return max((_jaccard(own, content_words(sentence)) for sentence in sentences), default=0.0)


def _jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    return len(left & right) / len(left | right) if left | right else 0.0
