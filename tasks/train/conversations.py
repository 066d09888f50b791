"""Conversations of several turns about one image: which answers belong together, and in which order."""

from __future__ import annotations

from collections.abc import Sequence

from storage.schema import Caption, Sample


def conversations(samples: Sequence[Sample], captions: Sequence[Caption]) -> list[list[Caption]]:
    """Captions by conversation, in the order of its turns; a caption of a prompt by itself is alone.

    A turn without a caption is left out, and the next one follows the turn before it (LLaVA-CoT deletes turns whose answer was
    not verified). Of several captions of one turn each is part of another conversation. In order of each one's first caption.
    """
    before = {sample.sample_id: sample.follows for sample in samples}
    groups: dict[tuple[str, int], list[tuple[int, Caption]]] = {}
    times: dict[str, int] = {}
    for row in captions:
        root, depth = _place(row.sample_id, before)
        number = times[row.sample_id] = times.get(row.sample_id, -1) + 1
        groups.setdefault((root, number), []).append((depth, row))
    return [[row for _, row in sorted(group, key=lambda item: item[0])] for group in groups.values()]


def _place(sample_id: str, before: dict[str, str | None]) -> tuple[str, int]:
    """(the conversation's first turn, turns before this one)."""
    depth = 0
    while (earlier := before.get(sample_id)) is not None:
        sample_id, depth = earlier, depth + 1
        if depth > len(before):
            raise ValueError(f"sample {sample_id} follows itself")
    return sample_id, depth
