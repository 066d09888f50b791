"""What a checkpoint's generation config does to logits, for rows of different prompts and lengths in one batch.

Each rule sees one row's own tokens, its prompt's included and no padding, so a row's logits don't depend on its neighbours.
Temperature and top_p are not here: a profile always states its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import (
    LogitsProcessor,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    SequenceBiasLogitsProcessor,
)

from tasks.core.models.generation_fields import check_generation

NEUTRAL: dict[str, Any] = {
    "repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "bad_words_ids": None, "sequence_bias": None, "min_length": 0,
    "min_new_tokens": None, "suppress_tokens": None, "begin_suppress_tokens": None, "forced_bos_token_id": None,
    "remove_invalid_values": False, "num_beams": 1, "num_return_sequences": 1,
}  # fmt: skip
"""Arguments with which `generate` applies none of these rules itself."""


class TokenHistory:
    """One row's tokens so far: prompt and answer."""

    def __init__(self, prompt: Sequence[int], answer: Sequence[int] = ()) -> None:
        """`answer`: tokens of it that were decoded before."""
        self.ids, self.answer_start = [*prompt, *answer], len(prompt)
        self._seen = set(self.ids)
        self._different = np.fromiter(self._seen, np.int64, len(self._seen))
        self._count = len(self._seen)

    def extend(self, tokens: Iterable[int]) -> None:
        """Add decoded tokens."""
        for token in tokens:
            self.ids.append(token)
            if token not in self._seen:
                self._seen.add(token)
                if self._count == len(self._different):
                    self._different = np.concatenate([self._different, np.zeros(256, np.int64)])
                self._different[self._count] = token
                self._count += 1

    @property
    def decoded(self) -> int:
        """Tokens of the answer so far."""
        return len(self.ids) - self.answer_start

    @property
    def different(self) -> np.ndarray:
        """All tokens that occur, once each, int64 [N]."""
        return self._different[: self._count]


@dataclass(frozen=True)
class DecodingRules:
    """Rules for logits; `needs_history` tells whether they depend on the tokens so far."""

    banned: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()
    repetition_penalty: float = 1.0
    min_length: int = 0  # tokens with the prompt's, before which no end token is drawn
    min_new_tokens: int = 0
    begin_banned: tuple[int, ...] = ()  # not drawn as an answer's first token
    biases: tuple[LogitsProcessor, ...] = ()  # transformers' own, which take one row's ids
    masks: tuple[LogitsProcessor, ...] = ()
    top_k: int = 0  # 0: all
    min_p: float = 0.0

    @classmethod
    def of(cls, config: Any, *, banned: Sequence[int], ends: Iterable[int], top_k: int | None) -> DecodingRules:
        """The rules of a generation config; `top_k` replaces its own unless it is None.

        Raises:
            ValueError: the config sets what can't be honoured.
        """
        check_generation(config)
        end_ids = sorted(ends)
        words = [list(word) for word in config.bad_words_ids or () if list(word) not in [[end] for end in end_ids]]
        single, longer = [word[0] for word in words if len(word) == 1], [word for word in words if len(word) > 1]
        ngram = config.no_repeat_ngram_size or 0
        masks: list[LogitsProcessor] = [NoRepeatNGramLogitsProcessor(ngram)] if ngram else []
        return cls(
            banned=tuple(sorted({*banned, *(config.suppress_tokens or ()), *single})),
            ends=tuple(end_ids),
            repetition_penalty=float(config.repetition_penalty or 1.0),
            min_length=config.min_length or 0,
            min_new_tokens=config.min_new_tokens or 0,
            begin_banned=tuple(config.begin_suppress_tokens or ()),
            biases=(SequenceBiasLogitsProcessor(config.sequence_bias),) if config.sequence_bias else (),
            masks=(*masks, *([NoBadWordsLogitsProcessor(longer, eos_token_id=end_ids)] if longer else [])),
            top_k=(config.top_k if top_k is None else top_k) or 0,
            min_p=config.min_p or 0.0,
        )

    @property
    def needs_history(self) -> bool:
        """Whether a row's own tokens count."""
        lengths = self.min_length or self.min_new_tokens or self.begin_banned
        return bool(self.repetition_penalty != 1.0 or lengths or self.biases or self.masks)

    def __call__(self, logits: torch.Tensor, histories: Sequence[TokenHistory]) -> torch.Tensor:
        """The logits [B, V] under the rules, changed in place where that is possible; one history a row if they count."""
        if self.needs_history:
            for processor in self.biases:
                logits = _by_row(processor, logits, histories)
            if self.repetition_penalty != 1.0:
                _penalise(logits, histories, self.repetition_penalty)
            for processor in self.masks:
                logits = _by_row(processor, logits, histories)
            for row, history in enumerate(histories):
                if len(history.ids) < self.min_length or history.decoded < self.min_new_tokens:
                    _ban(logits[row], self.ends)
                if self.begin_banned and not history.decoded:
                    _ban(logits[row], self.begin_banned)
        _ban(logits, self.banned)
        return logits

    def for_sampling(self, logits: torch.Tensor, temperature: torch.Tensor) -> torch.Tensor:
        """The logits [B, V] with what `top_k` and `min_p` leave out masked in rows of a temperature [B] above 0.

        Raises:
            ValueError: top_k is 1, with which every drawn answer is the greedy one.
        """
        if not (self.top_k or self.min_p) or not (temperature > 0).any():
            return logits
        if self.top_k == 1:
            raise ValueError(
                "top_k is 1 (the checkpoint's generation_config.json, or policy.top_k): every sampled answer would be the "
                "greedy one; set policy.top_k=0 to draw from all tokens"
            )
        floor = torch.full_like(logits[:, :1], float("-inf"))
        if self.top_k:
            floor = logits.topk(min(self.top_k, logits.shape[1]), dim=-1).values[:, -1:]
        if self.min_p:
            # A share of the largest probability is a distance from the largest logit.
            least = logits.amax(dim=-1, keepdim=True) + temperature[:, None] * float(np.log(self.min_p))
            floor = torch.maximum(floor, least)
        return logits.masked_fill((logits < floor) & (temperature > 0)[:, None], float("-inf"))


def _ban(logits: torch.Tensor, ids: Sequence[int]) -> None:
    """Mask ids in logits [..., V]; those past V have none."""
    ids = [id_ for id_ in ids if id_ < logits.shape[-1]]
    if ids:
        logits.index_fill_(-1, _tensor(tuple(ids), logits.device), float("-inf"))


def _tensor(ids: tuple[int, ...], device: torch.device) -> torch.Tensor:
    key = (ids, device)
    if key not in _TENSORS:
        _TENSORS[key] = torch.tensor(ids, device=device)
    return _TENSORS[key]


# Copying ids to a device at each step would wait for it.
_TENSORS: dict[tuple[tuple[int, ...], torch.device], torch.Tensor] = {}


def _by_row(processor: LogitsProcessor, logits: torch.Tensor, histories: Sequence[TokenHistory]) -> torch.Tensor:
    rows = []
    for row, history in zip(logits, histories, strict=True):
        ids: Any = torch.tensor([history.ids], device=logits.device)
        rows.append(processor(ids, row[None].clone()))
    return torch.cat(rows)


def _penalise(logits: torch.Tensor, histories: Sequence[TokenHistory], penalty: float) -> None:
    """Transformers' repetition penalty, in place: negative logits times it, others divided by it."""
    size = logits.shape[1]
    different = [history.different[history.different < size] for history in histories]
    ids = np.empty((len(different), max(map(len, different))), np.int64)
    for row, tokens in enumerate(different):
        ids[row, : len(tokens)] = tokens
        ids[row, len(tokens) :] = tokens[0]  # a repeat changes nothing: the same number is written again
    at = torch.from_numpy(ids).to(logits.device)
    scores = logits.gather(1, at)
    logits.scatter_(1, at, torch.where(scores < 0, scores * penalty, scores / penalty))
