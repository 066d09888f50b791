"""Texts to be read behind places: those behind one place lie side by side in one row, and none sees another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tasks.core.engine.cache import attention_mask
from tasks.core.engine.kv_prefix import Place


@dataclass(frozen=True)
class Reading:
    """G rows of T tokens."""

    places: list[Place]  # of the rows
    spans: list[tuple[int, int, int]]  # of each item: its row, and its first token there and the one after its last
    ids: torch.Tensor  # [G, T]
    positions: torch.Tensor  # [axes, G, T]
    text: torch.Tensor  # [G, T] which of its row's texts a token is of; -1: none

    @classmethod
    def of(cls, items: Sequence[tuple[Place, Sequence[int]]]) -> Reading:
        """Put items (place, tokens) in rows; what is pending at a place comes before each of its texts."""
        rows: dict[int, int] = {}
        places: list[Place] = []
        ids: list[list[int]] = []
        positions: list[list[torch.Tensor]] = []
        spans = []
        for place, tokens in items:
            row = rows.setdefault(id(place), len(rows))
            if row == len(places):
                places.append(place)
                ids.append([])
                positions.append([])
            start = len(ids[row])
            if place.pending is not None:
                ids[row].append(place.pending)
                positions[row].append(place.position[:, None])
            ids[row] += tokens
            text = torch.arange(place.following, place.following + len(tokens), device=place.position.device)
            positions[row].append(text.expand(len(place.position), -1))
            spans.append((row, start, len(ids[row])))
        device, steps = places[0].position.device, max(map(len, ids))
        all_ids = torch.zeros(len(ids), steps, dtype=torch.long, device=device)
        all_positions = torch.zeros(len(places[0].position), len(ids), steps, dtype=torch.long, device=device)
        of = torch.full((len(ids), steps), -1, device=device)
        for row, one in enumerate(ids):
            all_ids[row, : len(one)] = torch.tensor(one, device=device)
            all_positions[:, row, : len(one)] = torch.cat(positions[row], dim=1)
        for index, (row, start, end) in enumerate(spans):
            of[row, start:end] = index
        return cls(places, spans, all_ids, all_positions, of)

    @property
    def steps(self) -> int:
        """T."""
        return self.ids.shape[1]

    @property
    def tokens(self) -> int:
        """Tokens read, what fills short rows left out."""
        return int((self.text >= 0).sum())

    def mask(self, columns: int, dtype: torch.dtype) -> torch.Tensor:
        """[G, 1, T, columns + T]: 0 where a token looks: at its place, and at its own text up to itself."""
        device = self.ids.device
        length = torch.tensor([place.length for place in self.places], device=device)[:, None, None]
        place = torch.arange(columns, device=device)[None, None] >= columns - length
        own = (self.text[:, :, None] == self.text[:, None, :]) & torch.ones(
            self.steps, self.steps, device=device
        ).tril().bool()
        return attention_mask(torch.cat([place.expand(-1, self.steps, -1), own], dim=2), dtype)
