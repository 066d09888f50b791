"""The rows that are decoded together: their keys and values, masks and positions, one token a step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch

from tasks.core.engine.architecture import continuation_inputs
from tasks.core.engine.cache import Buffer, gather
from tasks.core.engine.draw import draw_tokens
from tasks.core.engine.places import Spoken
from tasks.core.engine.rows import Row, Said, Tokens
from tasks.core.models.positions import as_position_ids


class Batch:
    """B rows in one buffer, right-aligned; a row that is over stays until the next batch is made."""

    ROOM = 32  # columns a batch has for new tokens

    def __init__(self, rows: list[Row], buffer: Buffer, states_of: int | None) -> None:
        """Rows with what they have said so far, behind a buffer that holds all but their last tokens."""
        self.rows, self.buffer, self.states_of = rows, buffer, states_of
        device = buffer.tensor.device
        self.going = list(rows)
        widths = torch.tensor([row.place.length + len(row.tokens) for row in rows], device=device)
        columns = torch.arange(buffer.room, device=device)[None]
        # Columns behind `used` are masked in by being used: the mask is cut there.
        self.mask = (columns >= buffer.used - widths[:, None]).long()  # [B, room]
        self.pending = torch.tensor(
            [row.tokens[-1] if row.tokens else row.place.pending for row in rows], device=device
        )
        fed = torch.tensor([len(row.tokens) for row in rows], device=device)
        self.following = torch.tensor([row.place.following for row in rows], device=device) + fed  # [B]
        first = torch.stack([row.place.position for row in rows], dim=1)  # [axes, B]
        self.position = torch.where(fed[None] == 0, first, (self.following - 1)[None].expand_as(first))
        self.temperature = torch.tensor([row.draw.temperature for row in rows], device=device)
        self.top_p = torch.tensor([row.draw.top_p for row in rows], device=device)
        self.extra = continuation_inputs([row.place for row in rows], 1)

    @classmethod
    def of(cls, before: Batch | None, joining: Sequence[Row], *, cross: frozenset[int], states_of: int | None) -> Batch:
        """The rows of `before` that go on, and those that join."""
        going = before.going if before is not None else []
        rows = [*going, *joining]
        extra = max(1, min(cls.ROOM, max(row.limit - len(row.tokens) for row in rows)))
        old = None
        if before is not None and going:
            at = {id(row): index for index, row in enumerate(before.rows)}
            longest = max(row.place.length + len(row.tokens) for row in going)
            old = (before.buffer, [at[id(row)] for row in going], longest)
        return cls(rows, gather([row.place for row in joining], extra=extra, cross=cross, going=old), states_of)

    @property
    def size(self) -> int:
        """Rows, those that are over included."""
        return len(self.rows)

    @property
    def full(self) -> bool:
        """No column is left for a token."""
        return self.buffer.used == self.buffer.room

    @property
    def cells(self) -> int:
        """Rows times columns."""
        return self.size * self.buffer.room

    def step(self, model: Any, names: Tokens, counters: Counter[str]) -> list[tuple[Row, Said]]:
        """Feed the pending tokens and draw the next ones; the rows that are over now, with what they said."""
        wanted = {"output_hidden_states": True} if self.states_of is not None else {}
        out = model(
            input_ids=self.pending[:, None],
            attention_mask=self.mask[:, : self.buffer.used + 1],
            position_ids=as_position_ids(self.position[:, :, None]),
            past_key_values=self.buffer.cache,
            use_cache=True,
            **self.extra,
            **wanted,
        )
        counters["forwards"] += 1
        counters["decode_tokens"] += len(self.going)
        if self.states_of is not None:
            self._keep_states(out.hidden_states[self.states_of][:, -1])
        uniform = torch.tensor([0.0 if row.kept else row.uniform() for row in self.rows], dtype=torch.float64)
        logits = out.logits[:, -1].float()
        self.pending = draw_tokens(logits, self.temperature, self.top_p, uniform.to(logits.device))
        self.position = self.following[None].expand_as(self.position)
        self.following = self.following + 1
        over = []
        for index, (row, token) in enumerate(zip(self.rows, self.pending.tolist(), strict=True)):
            if row.kept is None and row.take(token, names):
                over.append((row, row.said(self._spoken(index, row) if row.keep else None)))
        if over:
            self.going = [row for row in self.going if row.kept is None]
        return over

    def _keep_states(self, hidden: torch.Tensor) -> None:
        """The hidden states [B, D] at tokens that may end a sentence."""
        for index, row in enumerate(self.rows):
            if row.keep and row.closing and row.kept is None:
                row.states[len(row.tokens)] = hidden[index].float().clone()

    def _spoken(self, index: int, row: Row) -> Spoken:
        """What a row that is over leaves: its kept tokens' keys and values, the first of them its place's pending token's."""
        assert row.kept is not None
        count, start = row.kept[0], self.buffer.used - len(row.tokens)
        kv = self.buffer.tensor[:, index, :, start : start + count].clone()
        return Spoken(row.place, tuple(row.tokens[:count]), kv, row.states)
