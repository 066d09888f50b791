"""The reward `judge`: another vision-language model rates a sentence from 0 to 10; the score is a tenth of the rating.

No network here: the caller brings a function that answers questions about images.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from PIL import Image

from tasks.core.models.cached_scorer import CachedScorer

QUESTION = (
    "Here is an image and a sentence that is meant to describe it, or a part of it.\n\n"
    "Sentence: {sentence}\n\n"
    "How well does the image support the sentence? 0: what it says is not in the image. 10: all that it says can be seen in "
    "the image. Answer with one number from 0 to 10 and nothing else."
)
_RATING = re.compile(r"(\d{1,2}(?:\.\d+)?)\s*(?:/\s*10)?\.?")
_FAILURES = 8  # sentences without a rating, and none with one, after which the judge counts as unable to rate

# (image, question) pairs -> answers, in order; None: that request was refused.
AnswerQuestions = Callable[[Sequence[tuple[Image.Image, str]]], Iterable[str | None]]


class JudgeError(ValueError):
    """The judge rates nothing."""


def read_rating(answer: str) -> float | None:
    """A rating in [0, 1] of an answer that is a number from 0 to 10, or `8/10`, and nothing else; None for any other."""
    match = _RATING.fullmatch(answer.strip())
    rating = float(match.group(1)) if match else -1.0
    return rating / 10 if 0 <= rating <= 10 else None


def judge_scores(answers: AnswerQuestions, counters: Counter[str]) -> CachedScorer:
    """`Scores` by ratings. A sentence without a rating scores None and is counted: `judge_refused`, `judge_unparsable`.

    Its `score` raises:
        JudgeError: none of the first sentences got a rating; quotes an answer.
    """

    def rate(images: Sequence[Image.Image], texts: Sequence[Sequence[str]]) -> list[list[float | None]]:
        questions = [
            (image, QUESTION.format(sentence=text))
            for image, of_image in zip(images, texts, strict=True)
            for text in of_image
        ]
        ratings: list[float | None] = []
        for answer in answers(questions):
            rating = None if answer is None else read_rating(answer)
            counters["judge_refused"] += answer is None
            counters["judge_unparsable"] += answer is not None and rating is None
            counters["judge_rated"] += rating is not None
            failed = counters["judge_refused"] + counters["judge_unparsable"]
            if not counters["judge_rated"] and failed >= _FAILURES:
                raise JudgeError(
                    f"the judge rated none of {failed} sentences; "
                    + ("every request was refused" if answer is None else f"one answer was {answer[:200]!r}")
                    + "; want a model that reads images and answers with a number"
                )
            ratings.append(rating)
        remaining = iter(ratings)
        return [[next(remaining) for _ in of_image] for of_image in texts]

    return CachedScorer(rate, counters, "texts_scored_judge")
