"""Scores of a sentence after the answer before it: of rewards that read that answer, and of those that don't.

Imports no model, so that flows can be planned without one.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from tasks.core.models.sentence_scores import Images, Scores


@runtime_checkable
class ScoresInContext(Protocol):
    """Scores texts by what the answer already holds, too."""

    def score_after(self, images: Images, items: Sequence[tuple[Hashable, str, str]]) -> list[float | None]:
        """One for each (job, answer before the text, text), in order; None: can't be scored."""


def score_after(scores: Scores, images: Images, items: Sequence[tuple[Hashable, str, str]]) -> list[float | None]:
    """Scores of (job, answer before the text, text), in order; most rewards depend on image and text alone."""
    if isinstance(scores, ScoresInContext):
        return scores.score_after(images, items)
    return scores.score(images, [(job, text) for job, _, text in items])
