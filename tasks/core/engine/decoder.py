"""Decoding over a key-value cache: prompts are read once, rows with different prefixes are decoded in one batch.

`start` prefills, `add` queues rows, `advance` decodes until some are finished. Finished rows leave the batch, queued rows
join it. A row draws from its own seed, at its own positions, under its own mask, so neither other rows nor their order
change its text. A token budget bounds the cache; it halves when memory runs out. Work is counted.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from PIL import Image
from transformers.cache_utils import DynamicCache, DynamicLayer

from tasks.core.engine.architecture import (
    CannotFork,
    Prompt,
    continuation_inputs,
    cross_layers,
    read_prompts,
)
from tasks.core.engine.batch import Batch
from tasks.core.engine.cache import Buffer, cross_kv_of, gather
from tasks.core.engine.kv_prefix import KVPrefix
from tasks.core.engine.packing import pack
from tasks.core.engine.reading import Reading
from tasks.core.engine.rows import Completion, Row, TokenTexts
from tasks.core.models.policy import Policy
from tasks.core.models.positions import as_position_ids

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")


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
            CannotFork: if the cache is not a list of keys and values.
        """
        check_forkable(policy)
        self.policy, self.state_layer = policy, state_layer
        self.kv_token_budget, self.regroup_threshold = kv_token_budget, regroup_threshold
        self.token_texts = TokenTexts(policy)
        self.cross_layers = cross_layers(policy.model)
        self.counters: Counter[str] = Counter()
        self._waiting: deque[Row] = deque()
        self._batch: Batch | None = None
        self._tried = (0, 0)  # rows and cache size of the last batch that was built

    # Reading

    @torch.inference_mode()
    def start(self, images: Sequence[Image.Image], prompts: Sequence[str], *, answer_next: bool = True) -> list[Prompt]:
        """Encode images with a prompt each, in one batch (in halves if memory runs out)."""

        def read(part: Sequence[tuple[Image.Image, str]]) -> list[Prompt]:
            inputs = self.policy.inputs([i for i, _ in part], [t for _, t in part], answer_next=answer_next)
            read = read_prompts(self.policy, inputs)
            self.counters["vision_encodes"] += len(part)
            self.counters["prefill_tokens"] += int(inputs["attention_mask"].sum())
            self.counters["forwards"] += 1
            return read

        return self._halving(list(zip(images, prompts, strict=True)), read)

    @torch.inference_mode()
    def read(
        self, items: Sequence[tuple[KVPrefix, Sequence[int]]], *, layer: int | None = None, keep: bool = True
    ) -> list[KVPrefix]:
        """Read tokens after prefixes, all in one batch; returns the prefixes after them.

        Args:
            items: prefixes with at least one token each.
            layer: keep the hidden state of this layer at the last token as the prefix's `state`.
            keep: whether the new prefixes will be continued; else only their states are valid (and a prefix without tokens
                gets its own state).
        """
        if keep and any(not tokens for _, tokens in items):
            raise ValueError("nothing to read: want at least one token for every prefix")
        return self._halving(list(items), lambda part: self._read(part, layer, keep))

    def _read(self, items: Sequence[tuple[KVPrefix, Sequence[int]]], layer: int | None, keep: bool) -> list[KVPrefix]:
        reading = Reading.of(items)
        prefixes = reading.prefixes
        columns = max(prefix.length for prefix in prefixes)
        tensor = gather(
            [p.full_kv() for p in prefixes], [columns] * len(prefixes), columns=columns, extra=reading.steps
        )
        buffer = Buffer(tensor, columns, cross_kv_of(prefixes), self.cross_layers)
        out = self.policy.model.model(
            input_ids=reading.ids,
            attention_mask=reading.mask(columns, tensor.dtype),
            position_ids=as_position_ids(reading.positions),
            past_key_values=buffer.cache,
            use_cache=True,
            **continuation_inputs(prefixes, reading.steps),
            **({"output_hidden_states": True} if layer is not None else {}),
        )
        self.counters["read_tokens"] += reading.tokens
        self.counters["forwards"] += 1
        read = []
        for (prefix, tokens), (row, start, end) in zip(items, reading.spans, strict=True):
            state = None if layer is None else out.hidden_states[layer][row, end - 1].float().clone()
            kv = tensor[:, row, :, columns + start : columns + end - 1]
            read.append(prefix.extended(kv.clone(), tokens, state) if keep else prefix.with_state(state))
        return read

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
        packing = pack([*active, *joining])
        self._tried = (len(active) + len(joining), packing.kv_tokens)
        batch = Batch(packing, self._batch, cross_layers=self.cross_layers, state_layer=self.state_layer)
        for _ in joining:
            self._waiting.popleft()
        return batch

    def _fits(self, rows: list[Row]) -> bool:
        """Whether the rows fit the budget."""
        return self.kv_token_budget is None or pack(rows).kv_tokens <= self.kv_token_budget

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

    def _halving(self, items: list[Item], work: Callable[[Sequence[Item]], list[Result]]) -> list[Result]:
        """`work(items)`, in two halves if memory runs out."""
        try:
            return work(items) if items else []
        except (RuntimeError, MemoryError) as error:
            if len(items) == 1 or not out_of_memory(error):
                raise
        self.counters["out_of_memory"] += 1
        free_memory()
        middle = len(items) // 2
        return self._halving(items[:middle], work) + self._halving(items[middle:], work)


def check_forkable(policy: Policy) -> None:
    """Raise CannotFork, with the reason, for a model whose cache is not a plain list of keys and values."""
    name = type(policy.model).__name__
    if not hasattr(policy.model, "model"):
        raise CannotFork(f"{name} has no inner model that gives hidden states")
    attention = getattr(policy.model.config, "_attn_implementation", "sdpa")
    if attention not in ("sdpa", "eager"):
        raise CannotFork(f"{name} runs with {attention}, which takes no custom mask (load it with sdpa)")
    kinds = {type(layer) for layer in DynamicCache(config=policy.model.config.get_text_config()).layers}
    other = sorted(kind.__name__ for kind in kinds - {DynamicLayer})
    if other:
        raise CannotFork(f"{name} keeps {', '.join(other)} in its cache")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on a GPU or on the CPU."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in text


def free_memory() -> None:
    """Return cached blocks to the device."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
