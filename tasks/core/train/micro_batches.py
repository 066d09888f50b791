"""A step's rows in parts that fit in memory: a size that is given, or one that is halved when memory runs out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from tasks.core.train.weights import FinetuneError

log = logging.getLogger(__name__)

R = TypeVar("R")
T = TypeVar("T")


class MicroBatches:
    """How many rows are read at once."""

    def __init__(self, size: int | None, batch: int) -> None:
        """`size`: rows a part; None: as many as fit, `batch` at first."""
        self.size, self.given = min(size or batch, batch), size is not None

    def parts(self, rows: Sequence[R]) -> Iterator[Sequence[R]]:
        """The rows, `size` at a time."""
        for start in range(0, len(rows), self.size):
            yield rows[start : start + self.size]

    def run(self, work: Callable[[], T], undo: Callable[[], None]) -> T:
        """What `work` returns; when memory runs out, it is undone and done again in parts of half the size.

        Raises:
            FinetuneError: memory runs out at a size that was given, or at a part of one row.
        """
        while True:
            try:
                return work()
            except torch.OutOfMemoryError as error:
                why = str(error).splitlines()[0]
            # Outside the handler: the error's traceback holds on to the tensors of the failed part.
            undo()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self._halve(why)

    def _halve(self, why: str) -> None:
        if self.given and self.size > 1:
            raise FinetuneError(
                f"memory ran out at finetune.micro_batch_size {self.size} ({why}): "
                f"--set finetune.micro_batch_size={self.size // 2}, or null to find it automatically"
            )
        if self.size == 1:
            raise FinetuneError(
                f"memory ran out with one row at a time ({why}): set finetune.train=lora, take smaller images, or a "
                "device with more memory"
            )
        self.size //= 2
        log.warning("memory ran out: a step reads %d rows at a time from now on (finetune.micro_batch_size)", self.size)
