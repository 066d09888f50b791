"""For models whose cache can't be forked: the decoder's work by plain `generate`, everything read again each time.

The same rows say the same: each token is drawn by the row's own seed in a logits processor that leaves `generate` no choice.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from tasks.core.engine.architecture import CannotFork
from tasks.core.engine.decoder import Decoder
from tasks.core.engine.draw import draw_tokens
from tasks.core.engine.rows import Row, Said, Tokens
from tasks.core.models.policy import Policy

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Told:
    """A place, and what was said, as what would have to be read again: an image, a prompt, and the answer so far."""

    image: Image.Image
    prompt: str
    before: tuple[int, ...] = ()  # the answer up to where this was said
    tokens: tuple[int, ...] = ()
    state: torch.Tensor | None = None

    def upto(self, count: int) -> Told:
        """The first `count` tokens of what was said."""
        return replace(self, tokens=self.tokens[:count], state=None)

    def place(self) -> Told:
        """The place behind it."""
        return replace(self, before=self.before + self.tokens, tokens=())


@dataclass(frozen=True)
class ToldPrompt:
    """A prompt as the decoder's `start` gives it."""

    place: Told


class GenerateDecoder:
    """As `Decoder`, by `generate`; slower by everything that is read again."""

    def __init__(self, policy: Policy, why: str) -> None:
        """Warn which model it is, and why."""
        log.warning("%s: candidates can't share a cache, so each step reads image and prompt again by generate", why)
        self.policy, self.names = policy, Tokens(policy)
        self.counters: Counter[str] = Counter()
        self._waiting: list[Row] = []

    def start(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[ToldPrompt]:
        """Places of images with prompts; nothing is read yet."""
        return [ToldPrompt(Told(image, prompt)) for image, prompt in zip(images, prompts, strict=True)]

    @torch.inference_mode()
    def read(
        self, items: Sequence[tuple[Told, Sequence[int]]], *, layer: int | None = None, keep: bool = True
    ) -> list[Told]:
        """The places after the tokens; the model is asked only for a hidden state."""
        places = [replace(place, before=place.before + tuple(tokens)) for place, tokens in items]
        if layer is None:
            return places
        return [replace(place, state=self._state(place, layer)) for place in places]

    def _state(self, place: Told, layer: int) -> torch.Tensor:
        return self.policy.hidden(self._inputs([place]), layer)[0, -1].float()

    def add(self, rows: Sequence[Row]) -> None:
        """Take rows."""
        self._waiting += rows

    @property
    def idle(self) -> bool:
        """Nothing waits."""
        return not self._waiting

    def advance(self) -> list[tuple[Row, Said]]:
        """Decode all rows that wait, those of one length limit together."""
        rows, self._waiting = self._waiting, []
        done = []
        for limit in sorted({row.limit for row in rows}):
            done += self._generate([row for row in rows if row.limit == limit], limit)
        return done

    @torch.inference_mode()
    def _generate(self, rows: Sequence[Row], limit: int) -> list[tuple[Row, Said]]:
        inputs = self._inputs([row.place for row in rows])
        over = _Rows(rows, self.names)
        self.counters["vision_encodes"] += len(rows)
        self.counters["prefill_tokens"] += int(inputs["attention_mask"].sum())
        self.policy.model.generate(
            **inputs,
            do_sample=False,
            max_new_tokens=limit,
            logits_processor=LogitsProcessorList([over]),
            stopping_criteria=StoppingCriteriaList([_Over(over)]),
        )
        self.counters["decode_tokens"] += sum(len(row.tokens) for row in rows)
        self.counters["forwards"] += max(len(row.tokens) for row in rows)
        return [(row, row.said(_told(row))) for row in rows]

    def _inputs(self, places: Sequence[Told]) -> dict[str, Any]:
        return self.policy.answered([p.image for p in places], [p.prompt for p in places], [p.before for p in places])


class _Rows(LogitsProcessor):
    """Draws every row's token itself and leaves `generate` that one."""

    def __init__(self, rows: Sequence[Row], names: Tokens) -> None:
        self.rows, self.names = rows, names
        self.temperature = torch.tensor([row.draw.temperature for row in rows])
        self.top_p = torch.tensor([row.draw.top_p for row in rows])

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        device = scores.device
        uniform = torch.tensor([0.0 if row.kept else row.uniform() for row in self.rows], dtype=torch.float64)
        drawn = draw_tokens(scores.float(), self.temperature.to(device), self.top_p.to(device), uniform.to(device))
        for row, token in zip(self.rows, drawn.tolist(), strict=True):
            if row.kept is None:
                row.take(token, self.names)
        only = torch.full_like(scores, float("-inf"))
        return only.scatter_(1, drawn[:, None], 0.0)  # type: ignore[return-value]


class _Over(StoppingCriteria):
    """Rows that are over stop."""

    def __init__(self, rows: _Rows) -> None:
        self.rows = rows

    def __call__(self, input_ids: torch.LongTensor, scores: Any, **kwargs: Any) -> torch.BoolTensor:
        over = [row.kept is not None for row in self.rows.rows]
        return torch.tensor(over, device=input_ids.device)  # type: ignore[return-value]


def _told(row: Row) -> Told:
    assert row.kept is not None
    return replace(row.place, tokens=tuple(row.tokens[: row.kept[0]]))


def open_decoder(policy: Policy, **options: Any) -> Decoder | GenerateDecoder:
    """The decoder, or the fallback for a policy whose cache can't be forked."""
    try:
        return Decoder(policy, **options)
    except CannotFork as why:
        return GenerateDecoder(policy, str(why))
