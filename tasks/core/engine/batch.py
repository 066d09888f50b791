"""The rows that are decoded together: their keys and values, masks and positions, one token per step."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch

from tasks.core.engine.architecture import continuation_inputs
from tasks.core.engine.cache import Buffer, attention_mask, fixed_tensors, new_slab, put_prefix
from tasks.core.engine.draw import draw_tokens
from tasks.core.engine.kv_prefix import KV, DecodedSpan
from tasks.core.engine.layers import Layers, Mask
from tasks.core.engine.packing import Packing
from tasks.core.engine.rows import Completion, Row, TokenTexts
from tasks.core.models.positions import as_position_ids


class Batch:
    """G chunks of Q rows in one buffer, right-aligned; a finished row stays in it until the next batch is made."""

    def __init__(self, packing: Packing, before: Batch | None, *, layers: Layers, state_layer: int | None) -> None:
        """Gather keys and values: rows of the batch `before` bring theirs, others start at their prefixes.

        The batch `before` is emptied as this one fills, so that only a part of its memory is held twice.
        """
        self.packing, self.layers, self.state_layer = packing, layers, state_layer
        chunks, width = packing.chunks, packing.width
        self.active = [row for chunk in chunks for row in chunk.rows]
        self.size = len(self.active)  # rows, finished ones included
        self._at = {id(row): (g, j) for g, chunk in enumerate(chunks) for j, row in enumerate(chunk.rows)}
        prefixes = [chunk.prefix for chunk in chunks]
        ends = [packing.columns - chunk.decoded * width for chunk in chunks]
        layout = prefixes[0].root.layout
        states = [
            before.states(chunk.rows[0]) if before and chunk.decoded else chunk.prefix.recurrent for chunk in chunks
        ]
        fixed = fixed_tensors(prefixes, states)
        slabs = []
        for index in range(len(layout.slabs)):
            slabs.append(self._gather(index, before, ends))
            if before is not None:
                before.buffer.release(index)
        self.buffer: Buffer = Buffer(layers, layout, slabs, packing.columns, fixed)
        device = slabs[0].device
        columns = torch.arange(self.buffer.capacity, device=device)[None]
        end = torch.tensor(ends, device=device)[:, None]
        length = torch.tensor([prefix.length for prefix in prefixes], device=device)[:, None]
        self.mask = self._masked(columns, end, length)
        # [G, columns]: which token of its row a column holds; only layers with a window need it
        self.token = torch.where(columns < end, columns - end + length, (columns - end) // width + length)
        pending = [[row.tokens[-1] if row.tokens else row.prefix.pending for row in chunk.rows] for chunk in chunks]
        self.pending = torch.tensor(
            [[*ids, *[ids[0]] * (width - len(ids))] for ids in pending], device=device
        )  # [G, Q]
        decoded = torch.tensor([chunk.decoded for chunk in chunks], device=device)
        self.query = length[:, 0] + decoded  # [G] which token of its row is fed next
        self.next_position = torch.tensor([prefix.next_position for prefix in prefixes], device=device) + decoded  # [G]
        first = torch.stack([prefix.position for prefix in prefixes], dim=1)  # [axes, G]
        self.position = torch.where(decoded[None] == 0, first, (self.next_position - 1)[None].expand_as(first))
        self.extra = continuation_inputs(prefixes, width)
        self._index()

    def _gather(self, index: int, before: Batch | None, ends: list[int]) -> torch.Tensor:
        """The slab `index`, [E, G, H, capacity, D]."""
        packing = self.packing
        slab = new_slab([chunk.prefix for chunk in packing.chunks], index, packing.columns + packing.extra)
        for g, (chunk, end) in enumerate(zip(packing.chunks, ends, strict=True)):
            if before is None or not chunk.decoded:
                put_prefix(slab, index, g, chunk.prefix, end)
                continue
            start = end - chunk.prefix.length
            slab[:, g, :, start:end] = before.prefix_slab(index, chunk.rows[0])
            own = slab[:, g, :, end : packing.columns].unflatten(2, (chunk.decoded, packing.width))
            sources: dict[int, list[tuple[int, int]]] = {}  # chunk of `before` -> (query there, query here)
            for j, row in enumerate(chunk.rows):
                source, query = before.place(row)
                sources.setdefault(source, []).append((query, j))
            for source, queries in sources.items():
                there, here = ([pair[at] for pair in queries] for at in (0, 1))
                own[..., _span_of(here), :] = before.own_slab(index, source, chunk.decoded)[..., _span_of(there), :]
        return slab

    def _masked(self, columns: torch.Tensor, end: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        """[G, 1, Q, columns]: 0 where a query attends, the smallest number elsewhere; the caller crops unused columns."""
        width = self.packing.width
        columns, end, length = columns[:, None], end[:, None], length[:, None]
        query = torch.arange(width, device=columns.device)[None, :, None]
        own = (columns >= end) & ((columns - end) % width == query)
        return attention_mask(own | ((columns >= end - length) & (columns < end)), self.buffer.dtype)

    def _index(self) -> None:
        """Index tensors of the unfinished rows, rebuilt when a row finishes."""
        device = self.pending.device
        at = [self._at[id(row)] for row in self.active]
        self._chunk = torch.tensor([g for g, _ in at], device=device)
        self._query = torch.tensor([j for _, j in at], device=device)
        self._temperature = torch.tensor([row.draw.temperature for row in self.active], device=device)
        self._top_p = torch.tensor([row.draw.top_p for row in self.active], device=device)

    @property
    def full(self) -> bool:
        """No column is left for another token."""
        return self.buffer.used == self.buffer.capacity

    @property
    def kv_tokens(self) -> int:
        """Size of the cache: chunks times columns."""
        return self.packing.kv_tokens

    def place(self, row: Row) -> tuple[int, int]:
        """The chunk of a row and its query there."""
        return self._at[id(row)]

    def prefix_slab(self, index: int, row: Row) -> torch.Tensor:
        """Keys and values of a row's prefix, [E, H, length, D]."""
        chunk, _ = self.place(row)
        end = self.buffer.used - len(row.tokens) * self.packing.width
        return self.buffer.slabs[index][:, chunk, :, end - row.prefix.length : end]

    def own_slab(self, index: int, chunk: int, decoded: int) -> torch.Tensor:
        """Keys and values after a chunk's prefix, [E, H, n decoded, Q, D]: of the pending token, then of all but the last."""
        used, width = self.buffer.used, self.packing.width
        own = self.buffer.slabs[index][:, chunk, :, used - decoded * width : used]
        return own.unflatten(2, (decoded, width))

    def states(self, row: Row) -> KV:
        """The states of recurrent layers after all tokens of a row but the last."""
        return self.buffer.states(self.place(row)[0])

    def step(self, model: Any, token_texts: TokenTexts, counters: Counter[str]) -> list[tuple[Row, Completion]]:
        """Feed the pending tokens and draw the next ones; returns the rows that finished, with their completions."""
        width = self.packing.width
        hidden_states = {"output_hidden_states": True} if self.state_layer is not None else {}
        out = model(
            input_ids=self.pending,
            attention_mask=self._mask(self.buffer.used + width),
            position_ids=as_position_ids(self.position[:, :, None].expand(-1, -1, width)),
            past_key_values=self.buffer.cache,
            use_cache=True,
            **self.extra,
            **hidden_states,
        )
        counters["forwards"] += 1
        counters["decode_tokens"] += len(self.active)
        if self.state_layer is not None:
            self._keep_states(out.hidden_states[self.state_layer])
        uniform = torch.tensor([row.uniform() for row in self.active], dtype=torch.float64)
        logits = token_texts.ruled(out.logits[self._chunk, self._query].float(), self.active, self._temperature)
        drawn = draw_tokens(logits, self._temperature, self._top_p, uniform.to(logits.device))
        self.pending[self._chunk, self._query] = drawn
        self.position = self.next_position[None].expand_as(self.position)
        self.next_position, self.query = self.next_position + 1, self.query + 1
        finished = [row for row, token in zip(self.active, drawn.tolist(), strict=True) if row.take(token, token_texts)]
        if not finished:
            return []
        completions = [(row, row.completion(self._span(row) if row.keep else None)) for row in finished]
        self.active = [row for row in self.active if row.cut is None]
        self._index()
        return completions

    def _mask(self, columns: int) -> Mask:
        """What the pending tokens attend to, of the first `columns` columns."""
        distance = None
        if self.layers.window is not None:
            distance = (self.query[:, None] - self.token[:, :columns])[:, None]
        return self.layers.mask(self.mask[..., :columns], distance)

    def _keep_states(self, hidden: torch.Tensor) -> None:
        """Keep the hidden states, of [G, Q, D], at tokens that may end a sentence."""
        for row in self.active:
            if row.keep and row.closing:
                row.states[len(row.tokens)] = hidden[self._at[id(row)]].float().clone()

    def _span(self, row: Row) -> DecodedSpan:
        """What a finished row keeps to be continued."""
        assert row.cut is not None
        count, (chunk, query) = row.cut.tokens, self.place(row)
        kv = None
        if not self.layers.recurrent:
            kv = tuple(
                self.own_slab(index, chunk, len(row.tokens))[..., :count, query, :].clone()
                for index in range(len(self.buffer.slabs))
            )
        return DecodedSpan(row.prefix, tuple(row.tokens[:count]), kv, row.states)


def _span_of(indices: list[int]) -> slice | list[int]:
    """A slice where the indices are a range: it is copied without being gathered first."""
    first, last = indices[0], indices[-1]
    return slice(first, last + 1) if indices == list(range(first, last + 1)) else indices
