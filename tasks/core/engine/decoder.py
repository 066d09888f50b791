"""Decoding over a key-value cache: prompts are read once, rows with different prefixes are decoded in one batch.

`start` prefills, `add` queues rows, `advance` decodes until some are finished. Finished rows leave the batch, queued rows
join it. A row draws from its own seed, at its own positions, under its own mask, so neither other rows nor their order
change its text. A token budget bounds the cache; it halves when memory runs out. Work is counted.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Sequence

import torch
from PIL import Image

from tasks.core.engine.architecture import Prompt
from tasks.core.engine.batch import Batch
from tasks.core.engine.kv_prefix import KVPrefix, UnreadPrefix
from tasks.core.engine.layers import CannotFork, Layers, layers_of
from tasks.core.engine.packing import Packing, pack
from tasks.core.engine.reader import Reader, free_memory, out_of_memory
from tasks.core.engine.rows import Completion, Row, TokenTexts
from tasks.core.models.policy import Policy

log = logging.getLogger(__name__)


class Decoder:
    """Decodes with one policy; `counters` counts the work done."""

    def __init__(
        self,
        policy: Policy,
        *,
        kv_token_budget: int | None = None,
        regroup_threshold: float = 0.5,
        state_layer: int | None = None,
    ) -> None:
        """Check that the policy's cache can be forked.

        Args:
            policy: the model that decodes.
            kv_token_budget: largest size of the cache, rows times columns; None: no bound until memory runs out.
            regroup_threshold: the batch is rebuilt, without finished rows and with queued ones, when at most this share of
                its rows is unfinished.
            state_layer: keep the hidden states of this layer where sentences end; None: keep none.

        Raises:
            CannotFork: if continuations can't share a cache.
        """
        self.layers = check_forkable(policy)
        self.policy, self.state_layer = policy, state_layer
        self.kv_token_budget, self.regroup_threshold = kv_token_budget, regroup_threshold
        self.token_texts = TokenTexts(policy)
        self.counters: Counter[str] = Counter()
        self._reader = Reader(policy, self.layers, self.counters)
        self._waiting: deque[Row] = deque()
        self._batch: Batch | None = None
        self._tried = (0, 0)  # rows and cache size of the last batch that was built

    # Reading

    def start(self, images: Sequence[Image.Image], prompts: Sequence[str], *, answer_next: bool = True) -> list[Prompt]:
        """See `Reader.start`."""
        return self._reader.start(images, prompts, answer_next=answer_next)

    def read(
        self,
        items: Sequence[tuple[KVPrefix | UnreadPrefix, Sequence[int]]],
        *,
        layer: int | None = None,
        keep: bool = True,
    ) -> list[KVPrefix]:
        """See `Reader.read`."""
        return self._reader.read(items, layer=layer, keep=keep)

    def settled(self, prefixes: Sequence[KVPrefix | UnreadPrefix]) -> list[KVPrefix]:
        """See `Reader.settled`."""
        return self._reader.settled(prefixes)

    # Decoding

    def add(self, rows: Sequence[Row]) -> None:
        """Queue rows; they are decoded in this order, as the budget allows."""
        self._waiting.extend(rows)

    @property
    def idle(self) -> bool:
        """No row is being decoded and none is queued."""
        return not self._waiting and (self._batch is None or not self._batch.active)

    @torch.inference_mode()
    def advance(self) -> list[tuple[Row, Completion]]:
        """Decode until rows finish and at most `regroup_threshold` of the batch is left; returns the finished rows."""
        done: list[tuple[Row, Completion]] = []
        regroup = bool(self._waiting)
        for row, prefix in zip(self._waiting, self.settled([row.prefix for row in self._waiting]), strict=True):
            row.prefix = prefix
        while not self.idle:
            low = self._batch is None or len(self._batch.active) <= self.regroup_threshold * self._batch.size
            if done and low:
                break
            try:
                if regroup or low or (self._batch is not None and self._batch.full):
                    self._batch, regroup = self._regroup(), False
                assert self._batch is not None
                done += self._batch.step(self.policy.model, self.token_texts, self.counters)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                self._shrink(error)
        return done

    def _regroup(self) -> Batch:
        """A batch of the unfinished rows and as many queued ones as the budget allows."""
        active = self._batch.active if self._batch is not None else []
        # Rows have grown: if they no longer fit, the last ones are restarted later.
        while len(active) > 1 and not self._fits(active):
            self._waiting.appendleft(active.pop().restarted())
        waiting = list(self._waiting)
        fit = bisect_left(range(len(waiting)), True, key=lambda i: not self._fits([*active, *waiting[: i + 1]]))
        joining = waiting[: max(fit, 0 if active else 1)]
        packing = self._packing([*active, *joining])
        self._tried = (len(active) + len(joining), packing.kv_tokens)
        batch = Batch(packing, self._batch, layers=self.layers, state_layer=self.state_layer)
        for _ in joining:
            self._waiting.popleft()
        return batch

    def _packing(self, rows: list[Row]) -> Packing:
        return pack(rows, apart=self.layers.recurrent)

    def _fits(self, rows: list[Row]) -> bool:
        """Whether the rows fit the budget."""
        return self.kv_token_budget is None or self._packing(rows).kv_tokens <= self.kv_token_budget

    def _shrink(self, error: Exception) -> None:
        """Halve the budget and restart the unfinished rows: they will decode the same tokens, since each has its own seed."""
        rows, kv_tokens = self._tried
        if rows == 1:
            raise error
        self.kv_token_budget = kv_tokens // 2
        log.warning(
            "out of memory with a key-value cache of %d tokens: retrying with %d", kv_tokens, self.kv_token_budget
        )
        self.counters["out_of_memory"] += 1
        if self._batch is not None:
            self._waiting.extendleft(row.restarted() for row in reversed(self._batch.active))
            self._batch = None
        free_memory()


def check_forkable(policy: Policy) -> Layers:
    """The layers of a policy's language model.

    Raises:
        CannotFork: with the reason, for a model whose continuations can't share a cache.
    """
    name = type(policy.model).__name__
    if not hasattr(policy.model, "model"):
        raise CannotFork(f"{name} has no inner model that gives hidden states")
    attention = getattr(policy.model.config, "_attn_implementation", "sdpa")
    if attention not in ("sdpa", "eager"):
        raise CannotFork(f"{name} runs with {attention}, which takes no custom mask (load it with sdpa)")
    return layers_of(policy.model)
