"""The rows that are decoded together: their keys and values, masks and positions, one token a step."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch

from tasks.core.engine.architecture import continuation_inputs
from tasks.core.engine.cache import Buffer, attention_mask, fixed_of, gather
from tasks.core.engine.draw import draw_tokens
from tasks.core.engine.kv_prefix import Spoken
from tasks.core.engine.packing import Packing
from tasks.core.engine.rows import Row, Said, Tokens
from tasks.core.models.positions import as_position_ids


class Batch:
    """G chunks of Q rows in one buffer, right-aligned; a row that is over stays until the next batch is made."""

    def __init__(self, packing: Packing, before: Batch | None, *, cross: frozenset[int], states_of: int | None) -> None:
        """Put together what was read and said: rows of `before` bring theirs, others come from their places."""
        self.packing, self.states_of = packing, states_of
        chunks, width = packing.chunks, packing.width
        self.going = [row for chunk in chunks for row in chunk.rows]
        self.size = len(self.going)  # rows, those that are over included
        self._at = {id(row): (g, j) for g, chunk in enumerate(chunks) for j, row in enumerate(chunk.rows)}
        places = [chunk.place for chunk in chunks]
        ends = [packing.columns - chunk.said * width for chunk in chunks]
        prefixes = [before.prefix(chunk.rows[0]) if before and chunk.said else chunk.place.path() for chunk in chunks]
        tensor = gather(prefixes, ends, columns=packing.columns, extra=packing.extra)
        for g, chunk in enumerate(chunks):
            for j, row in enumerate(chunk.rows):
                if before is not None and chunk.said:
                    tensor[:, g, :, ends[g] + j : packing.columns : width] = before.own(row)
        self.buffer = Buffer(tensor, packing.columns, fixed_of(places), cross)
        self.mask = self._masked(ends)
        device = tensor.device
        pending = [[row.tokens[-1] if row.tokens else row.place.pending for row in chunk.rows] for chunk in chunks]
        self.pending = torch.tensor(
            [[*ids, *[ids[0]] * (width - len(ids))] for ids in pending], device=device
        )  # [G, Q]
        said = torch.tensor([chunk.said for chunk in chunks], device=device)
        self.following = torch.tensor([place.following for place in places], device=device) + said  # [G]
        first = torch.stack([place.position for place in places], dim=1)  # [axes, G]
        self.position = torch.where(said[None] == 0, first, (self.following - 1)[None].expand_as(first))
        self.extra = continuation_inputs(places, width)
        self._index()

    def _masked(self, ends: list[int]) -> torch.Tensor:
        """[G, 1, Q, columns]: 0 where a query looks, the least number elsewhere; columns to come are cut off by the caller."""
        tensor, width = self.buffer.tensor, self.packing.width
        columns = torch.arange(self.buffer.room, device=tensor.device)[None, None]
        end = torch.tensor(ends, device=tensor.device)[:, None, None]
        length = torch.tensor([chunk.place.length for chunk in self.packing.chunks], device=tensor.device)[
            :, None, None
        ]
        query = torch.arange(width, device=tensor.device)[None, :, None]
        own = (columns >= end) & ((columns - end) % width == query)
        return attention_mask(own | ((columns >= end - length) & (columns < end)), tensor.dtype)

    def _index(self) -> None:
        """What is looked up for the rows that go on, made anew when one is over."""
        device = self.buffer.tensor.device
        at = [self._at[id(row)] for row in self.going]
        self._chunk = torch.tensor([g for g, _ in at], device=device)
        self._query = torch.tensor([j for _, j in at], device=device)
        self._temperature = torch.tensor([row.draw.temperature for row in self.going], device=device)
        self._top_p = torch.tensor([row.draw.top_p for row in self.going], device=device)

    @property
    def full(self) -> bool:
        """No column is left for a token."""
        return self.buffer.used == self.buffer.room

    @property
    def cells(self) -> int:
        """Chunks times columns."""
        return self.packing.cells

    def prefix(self, row: Row) -> torch.Tensor:
        """Keys and values up to a row's place, [2S, H, length, D]."""
        chunk, _ = self._at[id(row)]
        end = self.buffer.used - len(row.tokens) * self.packing.width
        return self.buffer.tensor[:, chunk, :, end - row.place.length : end]

    def own(self, row: Row) -> torch.Tensor:
        """Those since then, [2S, H, tokens said, D]: of what was pending at the place and all that was said but the last."""
        chunk, query = self._at[id(row)]
        width = self.packing.width
        start = self.buffer.used - len(row.tokens) * width + query
        return self.buffer.tensor[:, chunk, :, start : self.buffer.used : width]

    def step(self, model: Any, names: Tokens, counters: Counter[str]) -> list[tuple[Row, Said]]:
        """Feed the pending tokens and draw the next ones; the rows that are over now, with what they said."""
        width = self.packing.width
        wanted = {"output_hidden_states": True} if self.states_of is not None else {}
        out = model(
            input_ids=self.pending,
            attention_mask=self.mask[..., : self.buffer.used + width],
            position_ids=as_position_ids(self.position[:, :, None].expand(-1, -1, width)),
            past_key_values=self.buffer.cache,
            use_cache=True,
            **self.extra,
            **wanted,
        )
        counters["forwards"] += 1
        counters["decode_tokens"] += len(self.going)
        if self.states_of is not None:
            self._keep_states(out.hidden_states[self.states_of])
        uniform = torch.tensor([row.uniform() for row in self.going], dtype=torch.float64)
        logits = out.logits[self._chunk, self._query].float()
        drawn = draw_tokens(logits, self._temperature, self._top_p, uniform.to(logits.device))
        self.pending[self._chunk, self._query] = drawn
        self.position = self.following[None].expand_as(self.position)
        self.following = self.following + 1
        over = [row for row, token in zip(self.going, drawn.tolist(), strict=True) if row.take(token, names)]
        if not over:
            return []
        said = [(row, row.said(self._spoken(row) if row.keep else None)) for row in over]
        self.going = [row for row in self.going if row.kept is None]
        self._index()
        return said

    def _keep_states(self, hidden: torch.Tensor) -> None:
        """The hidden states [G, Q, D] at tokens that may end a sentence."""
        for row in self.going:
            if row.keep and row.closing:
                row.states[len(row.tokens)] = hidden[self._at[id(row)]].float().clone()

    def _spoken(self, row: Row) -> Spoken:
        """What a row that is over leaves to be gone on from."""
        assert row.kept is not None
        count = row.kept[0]
        return Spoken(row.place, tuple(row.tokens[:count]), self.own(row)[:, :, :count].clone(), row.states)
