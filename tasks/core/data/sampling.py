"""Which images, in which round, under which prompt: seeded, stratified, without replacement.

What is drawn depends on the seed and the items' own names, so a larger draw contains the smaller one, and neither the order
in which a file system lists images nor the number of shards matters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tasks.core.seeds import seed_for


def stratum(width: int, height: int) -> str:
    """The stratum of an image: orientation and size, all that is known without looking at it or its annotations."""
    orientation = "square" if abs(width - height) <= 0.1 * max(width, height) else "wide" if width > height else "tall"
    size = "small" if width * height < 128 * 128 else "large" if width * height > 1024 * 1024 else "medium"
    return f"{orientation}-{size}"


def stratified_order(strata: Mapping[str, str], seed: int) -> list[str]:
    """All ids of `strata` (id -> stratum) in a seeded order every prefix of which holds each stratum in proportion.

    Within a stratum ids are shuffled by seed; across strata the k-th of n comes at (k + u) / n, u a seeded offset of its own.
    """
    members: dict[str, list[str]] = {}
    for item, name in strata.items():
        members.setdefault(name, []).append(item)
    placed = []
    for name, ids in members.items():
        ids.sort(key=lambda item: seed_for("order", seed, name, item))
        for rank, item in enumerate(ids):
            jitter = (seed_for("place", seed, item) % 1_000_003) / 1_000_003
            placed.append(((rank + jitter) / len(ids), item))
    return [item for _, item in sorted(placed)]


def round_slice(order: Sequence[str], size: int, round_index: int) -> list[str]:
    """The `size` ids of round `round_index` (0-based): rounds don't share an image until all were used, then start over.

    Raises:
        ValueError: if there are fewer ids than one round needs.
    """
    if len(order) < size:
        raise ValueError(f"{len(order)} images, {size} needed: lower sample.images or give more images")
    rounds = len(order) // size
    start = (round_index % rounds) * size
    return list(order[start : start + size])


def draw_prompt(prompts: Sequence[str], seed: int, image_id: str) -> str:
    """The prompt of an image: uniform over the pool, by seed and image."""
    return prompts[seed_for("prompt", seed, image_id) % len(prompts)]


def held_out(ids: Sequence[str], share: float, seed: int) -> set[str]:
    """The ids held out of value training: the `share` (at least one, never all) with the smallest seeded draw."""
    count = min(max(1, round(share * len(ids))), len(ids) - 1)
    return set(sorted(ids, key=lambda item: seed_for("held out", seed, item))[:count])
