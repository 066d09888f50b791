"""Rewards that installed packages bring: `scorer.checkpoint: plugin:NAME`, an entry point of group `visloop.rewards`.

A reward is a function `(image, sentences) -> scores`: one number a sentence, larger is better, None where it can't say.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from importlib.metadata import entry_points
from inspect import getsourcefile
from pathlib import Path
from typing import TypeAlias

from PIL import Image

from tasks.core.models.cached_scorer import CachedScorer

GROUP = "visloop.rewards"
Reward: TypeAlias = Callable[[Image.Image, Sequence[str]], Sequence[float | None]]


def find_reward(name: str) -> Reward:
    """The installed reward of that name, imported now.

    Raises:
        ValueError: if no package brings it, or more than one does.
    """
    points = [point for point in entry_points(group=GROUP) if point.name == name]
    if len(points) != 1:
        known = ", ".join(sorted({point.name for point in entry_points(group=GROUP)})) or "none is installed"
        raise ValueError(
            f"{len(points)} installed packages bring a reward {name!r}, want one: an entry point of group {GROUP} "
            f"(installed: {known}); see docs/rewards.md"
        )
    reward: Reward = points[0].load()
    return reward


def code_of(reward: Reward) -> str:
    """A digest of the file that defines the reward: another text of it scores anew."""
    path = getsourcefile(reward)
    if path is None:
        raise ValueError(f"{reward!r} has no source file; a reward is a Python function")
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


class PluginScores:
    """An installed reward, called once for each image and sentence of a job."""

    def __init__(self, reward: Reward, name: str, counters: Counter[str]) -> None:
        self.reward, self.name = reward, name
        self._scores = CachedScorer(self._rated, counters, "texts_scored")

    def _rated(self, images: Sequence[Image.Image], texts: Sequence[Sequence[str]]) -> list[list[float | None]]:
        return [self._of_image(image, some) for image, some in zip(images, texts, strict=True)]

    def _of_image(self, image: Image.Image, texts: Sequence[str]) -> list[float | None]:
        scores = list(self.reward(image, list(texts)))
        if len(scores) != len(texts) or not all(score is None or math.isfinite(score) for score in scores):
            raise ValueError(
                f"reward {self.name!r} gave {scores[:5]} for {len(texts)} sentences: want a finite number or None for each"
            )
        return [None if score is None else float(score) for score in scores]

    def score(
        self, images: Mapping[Hashable, Image.Image], pairs: Sequence[tuple[Hashable, str]]
    ) -> list[float | None]:
        """One score for each (job, text) of `pairs`, in order.

        Raises:
            ValueError: if the reward gives another number of scores than it got sentences, or one that is not finite.
        """
        return self._scores.score(images, pairs)

    def forget(self, job: Hashable) -> None:
        """Drop the job's scores."""
        self._scores.forget(job)

    def is_cut(self, text: str) -> bool:
        """Never: a reward is taken to read all of a sentence."""
        return False
