"""The rows that are decoded together: their keys and values, masks and positions, one token per step."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch

from tasks.core.engine.architecture import continuation_inputs
from tasks.core.engine.cache import Buffer, attention_mask, cross_kv_of, gather
from tasks.core.engine.draw import draw_tokens
from tasks.core.engine.kv_prefix import DecodedSpan
from tasks.core.engine.packing import Packing
from tasks.core.engine.rows import Completion, Row, TokenTexts
from tasks.core.models.positions import as_position_ids


class Batch:
    """G chunks of Q rows in one buffer, right-aligned; a finished row stays in it until the next batch is made."""

    def __init__(
        self, packing: Packing, before: Batch | None, *, cross_layers: frozenset[int], state_layer: int | None
    ) -> None:
        """Gather keys and values: rows of the batch `before` bring theirs, others start at their prefixes."""
        self.packing, self.state_layer = packing, state_layer
        chunks, width = packing.chunks, packing.width
        self.active = [row for chunk in chunks for row in chunk.rows]
        self.size = len(self.active)  # rows, finished ones included
        self._at = {id(row): (g, j) for g, chunk in enumerate(chunks) for j, row in enumerate(chunk.rows)}
        prefixes = [chunk.prefix for chunk in chunks]
        ends = [packing.columns - chunk.decoded * width for chunk in chunks]
        kv = [
            before.prefix_kv(chunk.rows[0]) if before and chunk.decoded else chunk.prefix.full_kv() for chunk in chunks
        ]
        tensor = gather(kv, ends, columns=packing.columns, extra=packing.extra)
        for g, chunk in enumerate(chunks):
            for j, row in enumerate(chunk.rows):
                if before is not None and chunk.decoded:
                    tensor[:, g, :, ends[g] + j : packing.columns : width] = before.own_kv(row)
        self.buffer = Buffer(tensor, packing.columns, cross_kv_of(prefixes), cross_layers)
        self.mask = self._masked(ends)
        device = tensor.device
        pending = [[row.tokens[-1] if row.tokens else row.prefix.pending for row in chunk.rows] for chunk in chunks]
        self.pending = torch.tensor(
            [[*ids, *[ids[0]] * (width - len(ids))] for ids in pending], device=device
        )  # [G, Q]
        decoded = torch.tensor([chunk.decoded for chunk in chunks], device=device)
        self.next_position = torch.tensor([prefix.next_position for prefix in prefixes], device=device) + decoded  # [G]
        first = torch.stack([prefix.position for prefix in prefixes], dim=1)  # [axes, G]
        self.position = torch.where(decoded[None] == 0, first, (self.next_position - 1)[None].expand_as(first))
        self.extra = continuation_inputs(prefixes, width)
        self._index()

    def _masked(self, ends: list[int]) -> torch.Tensor:
        """[G, 1, Q, columns]: 0 where a query attends, the smallest number elsewhere; the caller crops unused columns."""
        tensor, width = self.buffer.tensor, self.packing.width
        columns = torch.arange(self.buffer.capacity, device=tensor.device)[None, None]
        end = torch.tensor(ends, device=tensor.device)[:, None, None]
        lengths = [chunk.prefix.length for chunk in self.packing.chunks]
        length = torch.tensor(lengths, device=tensor.device)[:, None, None]
        query = torch.arange(width, device=tensor.device)[None, :, None]
        own = (columns >= end) & ((columns - end) % width == query)
        return attention_mask(own | ((columns >= end - length) & (columns < end)), tensor.dtype)

    def _index(self) -> None:
        """Index tensors of the unfinished rows, rebuilt when a row finishes."""
        device = self.buffer.tensor.device
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

    def prefix_kv(self, row: Row) -> torch.Tensor:
        """Keys and values of a row's prefix, [2S, H, length, D]."""
        chunk, _ = self._at[id(row)]
        end = self.buffer.used - len(row.tokens) * self.packing.width
        return self.buffer.tensor[:, chunk, :, end - row.prefix.length : end]

    def own_kv(self, row: Row) -> torch.Tensor:
        """Keys and values after the prefix, [2S, H, n decoded, D]: of its pending token, then of all decoded but the last."""
        chunk, query = self._at[id(row)]
        width = self.packing.width
        start = self.buffer.used - len(row.tokens) * width + query
        return self.buffer.tensor[:, chunk, :, start : self.buffer.used : width]

    def step(self, model: Any, token_texts: TokenTexts, counters: Counter[str]) -> list[tuple[Row, Completion]]:
        """Feed the pending tokens and draw the next ones; returns the rows that finished, with their completions."""
        width = self.packing.width
        hidden_states = {"output_hidden_states": True} if self.state_layer is not None else {}
        out = model(
            input_ids=self.pending,
            attention_mask=self.mask[..., : self.buffer.used + width],
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
        self.next_position = self.next_position + 1
        finished = [row for row, token in zip(self.active, drawn.tolist(), strict=True) if row.take(token, token_texts)]
        if not finished:
            return []
        completions = [(row, row.completion(self._span(row) if row.keep else None)) for row in finished]
        self.active = [row for row in self.active if row.cut is None]
        self._index()
        return completions

    def _keep_states(self, hidden: torch.Tensor) -> None:
        """Keep the hidden states, of [G, Q, D], at tokens that may end a sentence."""
        for row in self.active:
            if row.keep and row.closing:
                row.states[len(row.tokens)] = hidden[self._at[id(row)]].float().clone()

    def _span(self, row: Row) -> DecodedSpan:
        """What a finished row keeps to be continued."""
        assert row.cut is not None
        count = row.cut.tokens
        return DecodedSpan(row.prefix, tuple(row.tokens[:count]), self.own_kv(row)[:, :, :count].clone(), row.states)
