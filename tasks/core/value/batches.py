"""Which transitions a step learns from: batches of indices, shuffled by seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tasks.core.seeds import seed_for


def batches(count: int, batch_size: int, epochs: int, seed: int) -> list[np.ndarray]:
    """Index batches of all epochs, shuffled by seed; the last one of an epoch may be short."""
    all_epochs = []
    for epoch in range(epochs):
        order = np.random.Generator(np.random.Philox(key=seed_for("value batches", seed, epoch))).permutation(count)
        all_epochs += [order[start : start + batch_size] for start in range(0, count, batch_size)]
    return all_epochs


def answer_batches(lengths: Sequence[int], batch_size: int, epochs: int, seed: int) -> list[np.ndarray]:
    """Index batches of whole answers, shuffled by seed: as many as fit in `batch_size` transitions, one at least.

    `lengths` are the answers' transitions, which lie one answer after the other.
    """
    starts = np.cumsum([0, *lengths])
    all_epochs = []
    for answers in batches(len(lengths), max(1, len(lengths)), epochs, seed):  # an epoch's order
        batch: list[int] = []
        for answer in answers:
            if batch and len(batch) + lengths[answer] > batch_size:
                all_epochs.append(np.array(batch))
                batch = []
            batch += range(starts[answer], starts[answer + 1])
        all_epochs += [np.array(batch)] if batch else []
    return all_epochs
