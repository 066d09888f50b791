"""For models whose cache can't be forked: prompt and answer so far are read again for each step of a search.

Rows after one prefix share that reading where the model's own cache can be repeated; else each reads by itself, in `generate`.
Rows decode the same tokens as in `Decoder`: each token is drawn with the row's own seed.
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
from tasks.core.engine.rows import Completion, Row, TokenTexts
from tasks.core.models.decoding_rules import NEUTRAL
from tasks.core.models.policy import Policy
from tasks.core.models.positions import as_position_ids, prompt_positions

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class PromptState:
    """What stands for a prefix or a decoded span here: all that has to be read again."""

    image: Image.Image
    prompt: str
    before: tuple[int, ...] = ()  # tokens of the answer before this span
    tokens: tuple[int, ...] = ()  # of this span
    state: torch.Tensor | None = None  # [D] hidden state at the last token, where requested

    def first(self, count: int) -> PromptState:
        """The span of its first `count` tokens."""
        return replace(self, tokens=self.tokens[:count], state=None)

    def ids(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(nothing: a prompt has no ids before it is read; tokens of the answer so far)."""
        return (), self.before + self.tokens

    def prefix(self) -> PromptState:
        """The prefix at its end."""
        return replace(self, before=self.before + self.tokens, tokens=())


@dataclass(frozen=True)
class UnreadPrompt:
    """A prompt, as `Decoder.start` returns one."""

    prefix: PromptState


class GenerateDecoder:
    """The interface of `Decoder` without forks; slower, since everything is read again."""

    def __init__(self, policy: Policy, why: str) -> None:
        """Log the reason `why` the faster decoder can't be used, once for each policy."""
        warn_once(policy, "%s: continuations can't share a cache, so each step reads image and prompt again", why)
        self.policy, self.token_texts = policy, TokenTexts(policy)
        self._repeats = hasattr(policy.model, "model") and not policy.model.config.is_encoder_decoder
        if not self._repeats:
            warn_once(policy, "%s: and each candidate does so by itself, in generate", why)
        self.counters: Counter[str] = Counter()
        self._waiting: list[Row] = []

    def start(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[UnreadPrompt]:
        """Images with a prompt each; nothing is read yet."""
        return [UnreadPrompt(PromptState(image, prompt)) for image, prompt in zip(images, prompts, strict=True)]

    @torch.inference_mode()
    def read(
        self, items: Sequence[tuple[PromptState, Sequence[int]]], *, layer: int | None = None, keep: bool = True
    ) -> list[PromptState]:
        """The prefixes after the tokens; the model runs only if a hidden state is requested."""
        prefixes = [replace(prefix, before=prefix.before + tuple(tokens)) for prefix, tokens in items]
        if layer is None:
            return prefixes
        return [replace(prefix, state=self._state(prefix, layer)) for prefix in prefixes]

    def _state(self, prefix: PromptState, layer: int) -> torch.Tensor:
        return self.policy.hidden(self._inputs([prefix]), layer)[0, -1].float()

    def add(self, rows: Sequence[Row]) -> None:
        """Queue rows."""
        self._waiting += rows

    @property
    def idle(self) -> bool:
        """No row is queued."""
        return not self._waiting

    def advance(self) -> list[tuple[Row, Completion]]:
        """Decode all queued rows, those with the same length limit together."""
        rows, self._waiting = self._waiting, []
        done = []
        for limit in sorted({row.limit for row in rows}):
            done += self._generate([row for row in rows if row.limit == limit], limit)
        return done

    @torch.inference_mode()
    def _generate(self, rows: Sequence[Row], limit: int) -> list[tuple[Row, Completion]]:
        prefixes = list({id(row.prefix): row.prefix for row in rows}.values())
        forced = _ForcedRows(rows, self.token_texts)
        if self._repeats and len(prefixes) < len(rows):
            read = self._generate_repeated(prefixes, rows, forced)
        else:
            read = self._inputs([row.prefix for row in rows])
            _start_histories(rows, read["input_ids"], read["attention_mask"])
            self.policy.model.generate(
                **read,
                **NEUTRAL,
                do_sample=False,
                max_new_tokens=limit,
                logits_processor=LogitsProcessorList([forced]),
                stopping_criteria=StoppingCriteriaList([_Finished(forced)]),
            )
        self.counters["vision_encodes"] += len(read["input_ids"])
        self.counters["prefill_tokens"] += int(read["attention_mask"].sum())
        self.counters["decode_tokens"] += sum(len(row.tokens) for row in rows)
        self.counters["forwards"] += max(len(row.tokens) for row in rows)
        return [(row, row.completion(_span(row))) for row in rows]

    def _generate_repeated(
        self, prefixes: Sequence[PromptState], rows: Sequence[Row], forced: _ForcedRows
    ) -> dict[str, Any]:
        """Decode rows whose prefixes are read once each; returns the inputs that were read."""
        model, inputs = self.policy.model, self._inputs(prefixes)
        at = {id(prefix): index for index, prefix in enumerate(prefixes)}
        of = torch.tensor([at[id(row.prefix)] for row in rows], device=self.policy.device)
        positions = prompt_positions(model, inputs)
        fed = {name: tensor for name, tensor in inputs.items() if name != "labels"}  # PaliGemma's processor adds them
        out = model(**fed, position_ids=as_position_ids(positions), use_cache=True, logits_to_keep=1)
        cache, logits = out.past_key_values, out.logits[:, -1][of]
        cache.reorder_cache(of)  # any order will do, and a row may come several times
        mask, following = inputs["attention_mask"][of], positions[:, :, -1].amax(dim=0)[of] + 1
        cross = inputs.get("cross_attention_mask")
        more = {} if cross is None else {"cross_attention_mask": cross[of, -1:]}
        ids = inputs["input_ids"][of]
        _start_histories(rows, ids, mask)
        while True:
            drawn = forced(ids, logits).argmax(dim=-1, keepdim=True)
            if all(row.cut is not None for row in rows):
                return inputs
            ids = torch.cat([ids, drawn], dim=1)
            mask = torch.cat([mask, torch.ones_like(drawn)], dim=1)
            out = model(
                input_ids=drawn,
                attention_mask=mask,
                position_ids=as_position_ids(following.expand(len(positions), 1, -1).transpose(1, 2)),
                past_key_values=cache,
                use_cache=True,
                **more,
            )
            logits, following = out.logits[:, -1], following + 1

    def _inputs(self, prefixes: Sequence[PromptState]) -> dict[str, Any]:
        return self.policy.answered(
            [p.image for p in prefixes], [p.prompt for p in prefixes], [p.before for p in prefixes]
        )


class _ForcedRows(LogitsProcessor):
    """Draws every row's token itself and masks all others."""

    def __init__(self, rows: Sequence[Row], token_texts: TokenTexts) -> None:
        self.rows, self.token_texts = rows, token_texts
        self.temperature = torch.tensor([row.draw.temperature for row in rows])
        self.top_p = torch.tensor([row.draw.top_p for row in rows])

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        device = scores.device
        uniform = torch.tensor([0.0 if row.cut else row.uniform() for row in self.rows], dtype=torch.float64)
        temperature = self.temperature.to(device)
        ruled = self.token_texts.ruled(scores.float().clone(), self.rows, temperature)
        drawn = draw_tokens(ruled, temperature, self.top_p.to(device), uniform.to(device))
        for row, token in zip(self.rows, drawn.tolist(), strict=True):
            if row.cut is None:
                row.take(token, self.token_texts)
        only = torch.full_like(scores, float("-inf"))
        return only.scatter_(1, drawn[:, None], 0.0)  # type: ignore[return-value]


class _Finished(StoppingCriteria):
    """Stops the rows that are finished."""

    def __init__(self, rows: _ForcedRows) -> None:
        self.rows = rows

    def __call__(self, input_ids: torch.LongTensor, scores: Any, **kwargs: Any) -> torch.BoolTensor:
        finished = [row.cut is not None for row in self.rows.rows]
        return torch.tensor(finished, device=input_ids.device)  # type: ignore[return-value]


def _start_histories(rows: Sequence[Row], ids: torch.Tensor, mask: torch.Tensor) -> None:
    """Give each row the tokens before it, from left-padded [B, L], for rules that count what was there."""
    for row, before, real in zip(rows, ids.tolist(), mask.bool().tolist(), strict=True):
        row.start_history([token for token, counts in zip(before, real, strict=True) if counts])


def _span(row: Row) -> PromptState:
    assert row.cut is not None
    return replace(row.prefix, tokens=tuple(row.tokens[: row.cut.tokens]))


_WARNED: set[tuple[str, str]] = set()


def warn_once(policy: Policy, message: str, why: object) -> None:
    """Log a warning about a policy that was not logged before."""
    if (policy.digest, message % why) not in _WARNED:
        _WARNED.add((policy.digest, message % why))
        log.warning(message, why)


def open_decoder(policy: Policy, **options: Any) -> Decoder | GenerateDecoder:
    """The decoder, or the fallback for a policy whose cache can't be forked."""
    try:
        return Decoder(policy, **options)
    except CannotFork as why:
        return GenerateDecoder(policy, str(why))
