"""Texts to be read after prefixes: those after one prefix lie side by side in one row, and none sees another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tasks.core.engine.cache import attention_mask
from tasks.core.engine.kv_prefix import KVPrefix


@dataclass(frozen=True)
class Reading:
    """G rows of T tokens, one row for each prefix."""

    prefixes: list[KVPrefix]  # [G]
    spans: list[tuple[int, int, int]]  # of each item: its row, its first token there, and the token after its last
    ids: torch.Tensor  # [G, T]
    positions: torch.Tensor  # [axes, G, T]
    text: torch.Tensor  # [G, T] index of the item that a token belongs to; -1: padding

    @classmethod
    def of(cls, items: Sequence[tuple[KVPrefix, Sequence[int]]], *, apart: bool = False) -> Reading:
        """Lay out items (prefix, tokens) in rows; a prefix's pending token comes before each of its texts.

        With `apart` every item has a row of its own: a recurrent layer knows no mask.
        """
        rows: dict[int, int] = {}
        prefixes: list[KVPrefix] = []
        ids: list[list[int]] = []
        positions: list[list[torch.Tensor]] = []
        spans = []
        for index, (prefix, tokens) in enumerate(items):
            row = rows.setdefault(index if apart else id(prefix), len(rows))
            if row == len(prefixes):
                prefixes.append(prefix)
                ids.append([])
                positions.append([])
            start = len(ids[row])
            if prefix.pending is not None:
                ids[row].append(prefix.pending)
                positions[row].append(prefix.position[:, None])
            ids[row] += tokens
            text = torch.arange(prefix.next_position, prefix.next_position + len(tokens), device=prefix.position.device)
            positions[row].append(text.expand(len(prefix.position), -1))
            spans.append((row, start, len(ids[row])))
        device, steps = prefixes[0].position.device, max(map(len, ids))
        all_ids = torch.zeros(len(ids), steps, dtype=torch.long, device=device)
        all_positions = torch.zeros(len(prefixes[0].position), len(ids), steps, dtype=torch.long, device=device)
        item_of = torch.full((len(ids), steps), -1, device=device)
        for row, row_ids in enumerate(ids):
            all_ids[row, : len(row_ids)] = torch.tensor(row_ids, device=device)
            all_positions[:, row, : len(row_ids)] = torch.cat(positions[row], dim=1)
        for index, (row, start, end) in enumerate(spans):
            item_of[row, start:end] = index
        return cls(prefixes, spans, all_ids, all_positions, item_of)

    @property
    def steps(self) -> int:
        """T."""
        return self.ids.shape[1]

    @property
    def tokens(self) -> int:
        """Tokens read, padding excluded."""
        return int((self.text >= 0).sum())

    def mask(self, columns: int, dtype: torch.dtype) -> torch.Tensor:
        """[G, 1, T, columns + T]: 0 where a token attends: to its prefix, and to its own text up to itself."""
        device = self.ids.device
        length = torch.tensor([prefix.length for prefix in self.prefixes], device=device)[:, None, None]
        cached = torch.arange(columns, device=device)[None, None] >= columns - length
        own = (self.text[:, :, None] == self.text[:, None, :]) & torch.ones(
            self.steps, self.steps, device=device
        ).tril().bool()
        return attention_mask(torch.cat([cached.expand(-1, self.steps, -1), own], dim=2), dtype)

    def distance(self, columns: int) -> torch.Tensor:
        """[G, T, columns + T] tokens from what a column holds to a query, where the query attends to it."""
        device = self.ids.device
        length = torch.tensor([prefix.length for prefix in self.prefixes], device=device)[:, None]
        within = torch.zeros_like(self.ids)  # [G, T] a token's place within its text
        for row, start, end in self.spans:
            within[row, start:end] = torch.arange(end - start, device=device)
        query = length + within
        cached = torch.arange(columns, device=device)[None] - columns + length  # [G, columns]
        return query[:, :, None] - torch.cat([cached, query], dim=1)[:, None]
