"""Random numbers in place of V: a control. What a search gains by V it must not gain by numbers that know nothing."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from tasks.core.models.sentence_scores import Images
from tasks.core.search.requests import Candidate
from tasks.core.seeds import seed_for


class RandomValues:
    """Each candidate's estimate is a value drawn from V's own of held-out sentences, so that it has V's distribution.

    The draw belongs to (seed, sample, text so far, candidate's text), as V does to image and text: a candidate that is proposed
    again has the same, whatever the batch. V itself is not read.
    """

    def __init__(self, values: Sequence[float], *, seed: int, name: Callable[[Hashable], str]) -> None:
        """Set up draws from `values`; `name` gives a job's sample id.

        Raises:
            ValueError: no values.
        """
        if not values:
            raise ValueError("no values to draw from: want V's estimates of held-out sentences")
        self._values, self._seed, self._name = sorted(values), seed, name

    def value(self, images: Images, items: Sequence[tuple[Hashable, str, Candidate]]) -> list[float]:
        """See `tasks.core.engine.guides.Values`; the images are not looked at."""
        return [self._draw(self._name(job), before, candidate.text) for job, before, candidate in items]

    def _draw(self, sample: str, before: str, text: str) -> float:
        index = seed_for("random value", self._seed, sample, before, text) % len(self._values)
        return self._values[index]

    def forget(self, job: Hashable) -> None:
        """Nothing is cached."""
