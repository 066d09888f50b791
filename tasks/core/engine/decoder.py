"""Decoding over a key-value cache: prompts read once, rows from anywhere in one batch, each as if it were alone.

`start` prefills, `add` takes rows, `advance` decodes until some are over. Rows that are over leave the batch, rows that were
added join it. A row draws from its own seed, at its own positions, behind its own mask, so neither its neighbours nor the
order change what it says. The cells of the cache are bounded by a budget that halves when memory runs out. Work is counted.
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
from tasks.core.engine.cache import Buffer, fixed_of, gather
from tasks.core.engine.kv_prefix import Place
from tasks.core.engine.packing import pack
from tasks.core.engine.reading import Reading
from tasks.core.engine.rows import Row, Said, Tokens
from tasks.core.models.policy import Policy
from tasks.core.models.positions import as_position_ids

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")


class Decoder:
    """Decodes with one policy; `counters` has the work done."""

    def __init__(
        self, policy: Policy, *, cells: int | None = None, refill: float = 0.5, states_of: int | None = None
    ) -> None:
        """Check that the policy's cache can be forked.

        Args:
            policy: what decodes.
            cells: rows times columns of the cache at most; None: no bound until memory runs out.
            refill: rows join, and those that are over leave, when this share of the batch or less is still decoded.
            states_of: keep the hidden states of this layer where sentences end.

        Raises:
            CannotFork: for a cache that is no list of keys and values.
        """
        check_forkable(policy)
        self.policy, self.cells, self.refill, self.states_of = policy, cells, refill, states_of
        self.names = Tokens(policy)
        self.cross = cross_layers(policy.model)
        self.counters: Counter[str] = Counter()
        self._waiting: deque[Row] = deque()
        self._batch: Batch | None = None
        self._tried = (0, 0)  # rows and cells of the last batch that was made

    # Reading

    @torch.inference_mode()
    def start(self, images: Sequence[Image.Image], prompts: Sequence[str], *, answer_next: bool = True) -> list[Prompt]:
        """Encode images and prompts, one each, in one batch (in halves where memory runs out)."""

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
        self, items: Sequence[tuple[Place, Sequence[int]]], *, layer: int | None = None, keep: bool = True
    ) -> list[Place]:
        """Read tokens on from places, all in one batch; the places after them.

        Args:
            items: places, and at least one token each.
            layer: whose hidden state at the last token is kept as the place's `state`.
            keep: whether the places are gone on from; else only their states are meant (no tokens: that of the place itself).
        """
        if keep and any(not tokens for _, tokens in items):
            raise ValueError("nothing to read: want at least one token for every place")
        return self._halving(list(items), lambda part: self._read(part, layer, keep))

    def _read(self, items: Sequence[tuple[Place, Sequence[int]]], layer: int | None, keep: bool) -> list[Place]:
        reading = Reading.of(items)
        places = reading.places
        columns = max(place.length for place in places)
        tensor = gather([p.path() for p in places], [columns] * len(places), columns=columns, extra=reading.steps)
        buffer = Buffer(tensor, columns, fixed_of(places), self.cross)
        out = self.policy.model.model(
            input_ids=reading.ids,
            attention_mask=reading.mask(columns, tensor.dtype),
            position_ids=as_position_ids(reading.positions),
            past_key_values=buffer.cache,
            use_cache=True,
            **continuation_inputs(places, reading.steps),
            **({"output_hidden_states": True} if layer is not None else {}),
        )
        self.counters["read_tokens"] += reading.tokens
        self.counters["forwards"] += 1
        read = []
        for (place, tokens), (row, start, end) in zip(items, reading.spans, strict=True):
            state = None if layer is None else out.hidden_states[layer][row, end - 1].float().clone()
            kv = tensor[:, row, :, columns + start : columns + end - 1]
            read.append(place.after(kv.clone(), tokens, state) if keep else place.unkept(state))
        return read

    # Decoding

    def add(self, rows: Sequence[Row]) -> None:
        """Take rows; they are decoded in the order they come, as the budget allows."""
        self._waiting.extend(rows)

    @property
    def idle(self) -> bool:
        """Nothing is being decoded and nothing waits."""
        return not self._waiting and (self._batch is None or not self._batch.going)

    @torch.inference_mode()
    def advance(self) -> list[tuple[Row, Said]]:
        """Decode until rows are over and the batch is down to its `refill` share; those rows with what they said."""
        done: list[tuple[Row, Said]] = []
        regroup = bool(self._waiting)
        while not self.idle:
            low = self._batch is None or len(self._batch.going) <= self.refill * self._batch.size
            if done and low:
                break
            try:
                if regroup or low or (self._batch is not None and self._batch.full):
                    self._batch, regroup = self._regroup(), False
                assert self._batch is not None
                done += self._batch.step(self.policy.model, self.names, self.counters)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                self._shrink(error)
        return done

    def _regroup(self) -> Batch:
        """The rows that go on, and as many of those that wait as the budget has room for."""
        going = self._batch.going if self._batch is not None else []
        # Rows have grown: the last ones begin again later, where there is no room for all.
        while len(going) > 1 and not self._fits(going):
            self._waiting.appendleft(going.pop().again())
        waiting = list(self._waiting)
        fit = bisect_left(range(len(waiting)), True, key=lambda i: not self._fits([*going, *waiting[: i + 1]]))
        joining = waiting[: max(fit, 0 if going else 1)]
        packing = pack([*going, *joining])
        self._tried = (len(going) + len(joining), packing.cells)
        batch = Batch(packing, self._batch, cross=self.cross, states_of=self.states_of)
        for _ in joining:
            self._waiting.popleft()
        return batch

    def _fits(self, rows: list[Row]) -> bool:
        """Whether the budget allows these rows."""
        return self.cells is None or pack(rows).cells <= self.cells

    def _shrink(self, error: Exception) -> None:
        """Halve the budget and decode the rows that were under way from their starts: their draws are their own."""
        rows, cells = self._tried
        if rows == 1:
            raise error
        self.cells = cells // 2
        log.warning("out of memory with %d cells of key-value cache: going on with %d", cells, self.cells)
        self.counters["out_of_memory"] += 1
        if self._batch is not None:
            self._waiting.extendleft(row.again() for row in reversed(self._batch.going))
            self._batch = None
        free_memory()

    def _halving(self, items: list[Item], work: Callable[[Sequence[Item]], list[Result]]) -> list[Result]:
        """`work(items)`, in two halves where memory runs out."""
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
    """Raise CannotFork, with the reason, for a model whose cache is more than keys and values in a row."""
    name = type(policy.model).__name__
    if not hasattr(policy.model, "model"):
        raise CannotFork(f"{name} has no inner model that gives hidden states")
    attention = getattr(policy.model.config, "_attn_implementation", "sdpa")
    if attention not in ("sdpa", "eager"):
        raise CannotFork(f"{name} runs with {attention}, which takes no mask of ours (load it with sdpa)")
    kinds = {type(layer) for layer in DynamicCache(config=policy.model.config.get_text_config()).layers}
    other = sorted(kind.__name__ for kind in kinds - {DynamicLayer})
    if other:
        raise CannotFork(f"{name} keeps {', '.join(other)} in its cache")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on a GPU or on the CPU."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in text


def free_memory() -> None:
    """Give cached blocks back to the device."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
