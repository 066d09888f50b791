"""Batched decoding over a key-value cache: encode and prefill once, fork rows, go on from the row that was kept.

A `Live` batch is a cache without its rows' last tokens, plus these tokens, still to be fed. Tokens that a row drew past its
sentence's end are masked out of the cache, not recomputed, so the next step needs no prefill. Rows don't influence each other:
each draws from its own seed, with explicit positions and masks. Work is counted.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from tasks.core.engine.draw import draw_tokens
from tasks.core.models.policy import Policy
from tasks.core.seeds import Part, uniforms
from tasks.core.text import first_sentence_end

_MAY_CLOSE = frozenset(".!?:;\n…。\uff01\uff1f")  # the last two are the full-width ! and ?


@dataclass(frozen=True)
class Live:
    """Rows that can go on: `rows` of them."""

    cache: Any
    mask: torch.Tensor  # [B, L] 1 where a cached position counts
    position: torch.Tensor  # [B] position of the pending token
    pending: torch.Tensor  # [B] the last token, not in the cache yet

    @property
    def rows(self) -> int:
        """The batch size B."""
        return len(self.pending)


@dataclass(frozen=True)
class Draw:
    """How one row draws: temperature 0 is greedy, and then the seed is not used."""

    temperature: float
    top_p: float
    seed: tuple[Part, ...]


@dataclass(frozen=True)
class Continuation:
    """What one row said."""

    tokens: tuple[int, ...]  # without an end token
    text: str  # stripped
    ended: bool  # the policy ended its answer here
    drawn: int  # tokens drawn, those past the sentence's end and the end token included


class Decoder:
    """Decodes with one policy and counts its work in `counters`."""

    def __init__(self, policy: Policy) -> None:
        """Check that the policy's cache can be forked.

        Raises:
            ValueError: for an architecture whose positions this decoder can't continue.
        """
        if "mrope_section" in str(policy.model.config.to_dict()):
            raise ValueError(
                f"{type(policy.model).__name__} has multi-axis rotary positions, which the decoder does not continue yet; "
                "use a LLaVA, LLaVA-NeXT, LLaVA-OneVision or Idefics3 checkpoint"
            )
        self.policy = policy
        self.counters: Counter[str] = Counter()
        self._closing: np.ndarray | None = None

    @torch.inference_mode()
    def prefill(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Live:
        """Encode images and prompts, one row each."""
        inputs = self.policy.inputs(images, prompts)
        mask = inputs["attention_mask"].long()
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        out = self.policy.model(**inputs, position_ids=positions, use_cache=True, logits_to_keep=1)
        self.counters["vision_encodes"] += len(images)
        self.counters["prefill_tokens"] += int(mask.sum())
        self.counters["forwards"] += 1
        # The last prompt token is fed again by the first step, at its own position: its first place is masked.
        mask = mask.clone()
        mask[:, -1] = 0
        return Live(out.past_key_values, mask, positions[:, -1], inputs["input_ids"][:, -1])

    def fork(self, live: Live, rows: Sequence[int]) -> Live:
        """A batch of the given rows, each as often as it is named; `live` stays as it is."""
        index = torch.as_tensor(list(rows), dtype=torch.long, device=live.mask.device)
        cache = copy.deepcopy(live.cache)
        cache.batch_select_indices(index)
        return Live(cache, live.mask[index], live.position[index], live.pending[index])

    @torch.inference_mode()
    def extend(
        self, live: Live, draws: Sequence[Draw], *, max_new_tokens: int, sentence: bool
    ) -> tuple[list[Continuation], Live]:
        """Let every row say one sentence (`sentence`) or all it has to say; `live` is used up.

        Returns the continuations and, for sentences, the batch after them, each row cut at its sentence's end.
        """
        if len(draws) != live.rows:
            raise ValueError(f"{len(draws)} draws for {live.rows} rows: want one each")
        state = _Rows(self, live, draws, max_new_tokens, sentence)
        state.run()
        return state.finish()

    def text(self, tokens: Sequence[int]) -> str:
        """Decoded text, special tokens left out."""
        return str(self.policy.tokenizer.decode(list(tokens), skip_special_tokens=True))

    def may_close(self, token: int) -> bool:
        """Whether a token's text can end a sentence; looked up, since it is asked for every token."""
        if self._closing is None:
            size = max(len(self.policy.tokenizer), self.policy.model.get_input_embeddings().num_embeddings)
            pieces = (self.policy.tokenizer.decode([i]) for i in range(size))
            self._closing = np.fromiter((bool(_MAY_CLOSE & set(piece)) for piece in pieces), dtype=bool, count=size)
        return bool(self._closing[token])


class _Rows:
    """The rows of one `extend` while they are decoded."""

    def __init__(self, decoder: Decoder, live: Live, draws: Sequence[Draw], limit: int, sentence: bool) -> None:
        self.decoder, self.live, self.limit, self.sentence = decoder, live, limit, sentence
        self.start, self.first_pending = live.mask.shape[1], live.pending
        device = live.mask.device
        self.temperature = torch.tensor([d.temperature for d in draws], device=device)
        self.top_p = torch.tensor([d.top_p for d in draws], device=device)
        self.uniform = np.stack(
            [uniforms(limit, *draw.seed) if draw.temperature else np.zeros(limit) for draw in draws]
        )  # [B, limit]
        self.tokens: list[list[int]] = [[] for _ in draws]
        self.kept: dict[int, tuple[int, str, bool]] = {}  # row -> (tokens kept, text, ended)
        self.closed = [False] * len(draws)
        self.order = list(range(len(draws)))  # batch position -> row

    def run(self) -> None:
        """Decode until every row is done."""
        live = self.live
        for step in range(self.limit):
            live, logits = self._forward(live)
            uniform = torch.as_tensor(self.uniform[self.order, step], device=logits.device)
            at = torch.as_tensor(self.order, device=logits.device)
            drawn = draw_tokens(logits, self.temperature[at], self.top_p[at], uniform)
            live = Live(live.cache, live.mask, live.position + 1, drawn)
            for row, token in zip(self.order, drawn.tolist(), strict=True):
                if row not in self.kept:
                    self.decoder.counters["decode_tokens"] += 1
                    self._take(row, token, last=step + 1 == self.limit)
            if len(self.kept) == len(self.tokens):
                break
            live = self._drop_finished(live)
        self.live = live

    def _forward(self, live: Live) -> tuple[Live, torch.Tensor]:
        """Feed the pending tokens; (the batch with them in its cache, logits [B, V] in float32)."""
        mask = torch.cat([live.mask, torch.ones_like(live.mask[:, :1])], dim=1)
        out = self.decoder.policy.model(
            input_ids=live.pending[:, None],
            attention_mask=mask,
            position_ids=live.position[:, None],
            past_key_values=live.cache,
            use_cache=True,
        )
        self.decoder.counters["forwards"] += 1
        return Live(out.past_key_values, mask, live.position, live.pending), out.logits[:, -1].float()

    def _take(self, row: int, token: int, *, last: bool) -> None:
        """Append a token to a row and see whether the row is done."""
        tokens = self.tokens[row]
        if token in self.decoder.policy.end_ids:
            text = self.decoder.text(tokens)
            end = first_sentence_end(text) if self.sentence else None
            # A row may end right after a second sentence began: that part is not this step's.
            self._keep(row, end, text, ended=end is None)
            tokens.append(token)
            return
        tokens.append(token)
        if self.sentence and (self.closed[row] or last):
            text = self.decoder.text(tokens)
            end = first_sentence_end(text)
            if end is not None or last:
                self._keep(row, end, text, ended=False)
        elif last:
            self._keep(row, None, self.decoder.text(tokens), ended=False)
        self.closed[row] = self.closed[row] or (self.sentence and self.decoder.may_close(token))

    def _keep(self, row: int, end: int | None, text: str, *, ended: bool) -> None:
        tokens = self.tokens[row]
        count = len(tokens)
        if end is not None:
            text = text[:end]
            # The fewest tokens whose text holds the sentence.
            while count > 1 and len(self.decoder.text(tokens[: count - 1]).rstrip()) >= end:
                count -= 1
        self.kept[row] = (count, text.strip(), ended)

    def _drop_finished(self, live: Live) -> Live:
        """Shrink a batch of whole answers once a quarter of it is done (sentences need their rows to go on)."""
        going = [at for at, row in enumerate(self.order) if row not in self.kept]
        if self.sentence or len(going) > 0.75 * len(self.order):
            return live
        index = torch.as_tensor(going, device=live.mask.device)
        live.cache.batch_select_indices(index)
        self.order = [self.order[at] for at in going]
        return Live(live.cache, live.mask[index], live.position[index], live.pending[index])

    def finish(self) -> tuple[list[Continuation], Live]:
        """Continuations in row order and the batch cut at the sentences' ends."""
        said = []
        for row, tokens in enumerate(self.tokens):
            count, text, ended = self.kept[row]
            said.append(Continuation(tuple(tokens[:count]), text, ended, len(tokens)))
        return said, self._cut(said) if self.sentence else self.live

    def _cut(self, said: Sequence[Continuation]) -> Live:
        """Mask what was drawn past each row's end; the last kept token becomes the pending one."""
        device = self.live.mask.device
        kept = torch.tensor([len(one.tokens) for one in said], device=device)  # [B]
        mask, steps = self.live.mask.clone(), self.live.mask.shape[1] - self.start
        # New places hold: the pending token, then drawn tokens 0, 1, ...; token kept-1 is pending again.
        place = torch.arange(steps, device=device)[None]
        # A row that kept nothing feeds its old pending token again, so that place is masked too.
        mask[:, self.start :] = (place < kept[:, None]).to(mask.dtype)
        before = self.live.position - steps  # position of the old pending token
        pending = torch.tensor(
            [one.tokens[-1] if one.tokens else -1 for one in said], device=device, dtype=self.live.pending.dtype
        )
        pending = torch.where(kept > 0, pending, self.first_pending)
        return Live(self.live.cache, mask, before + kept, pending)
