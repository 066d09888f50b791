"""The mean cosine of an image and each object word of a sentence (FiSAO; methods of section 5): the reward `token_clip`.

FiSAO embeds the token alone, E_txt(token). Image-text models have learned from captions, and a bare word is none: the demo
world's scorer tells present from absent objects by `a photo of a dog.` with an AUC of 0.999, by `dog` with 0.56. So the word
stands in a phrase, the one that CLIP's own zero-shot evaluation starts from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from tasks.core.benchmarks.mentions import find_mentions

if TYPE_CHECKING:
    from tasks.core.models.sentence_scores import Images, Scores

TEMPLATE = "a photo of a {}."


def phrase_of(word: str) -> str:
    """The phrase that is embedded for an object word."""
    return TEMPLATE.format(word.lower())


class TokenCosines:
    """`Scores`: mean over the sentence's object words of their cosines; 0 if it names none."""

    def __init__(self, cosines: Scores, counters: Counter[str]) -> None:
        """`cosines` scores the phrases of words, and caches their vectors."""
        self.cosines, self.counters = cosines, counters

    def score(self, images: Images, pairs: Sequence[tuple[Hashable, str]]) -> list[float | None]:
        """Mean cosines, as `Scores` specifies; a word that occurs twice counts twice."""
        phrases = {text: [phrase_of(mention.text) for mention in find_mentions(text)] for _, text in pairs}
        flat = list(dict.fromkeys((job, phrase) for job, text in pairs for phrase in phrases[text]))
        known = dict(zip(flat, self.cosines.score(images, flat), strict=True)) if flat else {}
        self.counters["texts_scored_token_clip"] += len(set(pairs))
        return [self._mean([known[job, phrase] for phrase in phrases[text]]) for job, text in pairs]

    @staticmethod
    def _mean(scores: Sequence[float | None]) -> float | None:
        numbers = [score for score in scores if score is not None]
        if len(numbers) < len(scores):
            return None
        return sum(numbers) / len(numbers) if numbers else 0.0

    def forget(self, job: Hashable) -> None:
        """Drop the image's vector."""
        self.cosines.forget(job)

    def is_cut(self, text: str) -> bool:
        """Words are short."""
        return False
