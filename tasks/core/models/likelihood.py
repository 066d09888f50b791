"""The likelihood of a sentence under the policy itself: the reward `likelihood`.

The mean log-probability of the sentence's tokens, in nats, after the image and a prompt; with `contrast` less the same after
the prompt alone, so that what is likely in any image counts for nothing (as in pointwise mutual information).
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from tasks.core.models.cached_scorer import CachedScorer
from tasks.core.models.policy import Policy, PolicyError
from tasks.core.models.positions import as_position_ids, prompt_positions

# Sentences are read in batches of one size and of a handful of widths: a score must not depend on the rest of the batch.
_ROWS = 8
_WIDTH = 16  # tokens; widths are multiples of it
_CACHE_SIZE = 16_384  # texts whose log-probability without the image is kept


@dataclass(frozen=True)
class _Read:
    """A prompt that was read, as its continuations need it."""

    cache: Any
    length: int  # tokens
    first: torch.Tensor  # [V] log-probabilities of the answer's first token
    following: int  # position of that token
    axes: int  # of positions
    cross_mask: torch.Tensor | None  # [1, 1, images, tiles]; Mllama's


class OwnLikelihood:
    """Rates sentences by the policy's own log-probabilities; each image is read once a call, for all its sentences."""

    def __init__(self, policy: Policy, prompt: str, *, contrast: bool) -> None:
        """`contrast`: whether the log-probability without the image is subtracted."""
        self.policy, self.prompt, self.contrast = policy, prompt, contrast
        self._blind: dict[str, float | None] = {}
        self._blind_prompt: _Read | None = None

    @torch.inference_mode()
    def __call__(self, images: Sequence[Image.Image], texts: Sequence[Sequence[str]]) -> list[list[float | None]]:
        """Mean log-probabilities a token, None for a text without tokens.

        Raises:
            PolicyError: the policy can't go on from a prompt that it has read, or can't read one without an image.
        """
        rated: list[list[float | None]] = []
        for image, some in zip(images, texts, strict=True):
            seen = self._behind(self._read(self.policy.inputs([image], [self.prompt])), some)
            blind = self._without_image(some) if self.contrast else [0.0] * len(some)
            rated.append([None if a is None or b is None else a - b for a, b in zip(seen, blind, strict=True)])
        return rated

    def _without_image(self, texts: Sequence[str]) -> list[float | None]:
        new = [text for text in dict.fromkeys(texts) if text not in self._blind]
        if new:
            if self._blind_prompt is None:
                self._blind_prompt = self._read_blind()
            self._blind |= dict(zip(new, self._behind(self._blind_prompt, new), strict=True))
        rated = [self._blind[text] for text in texts]
        for text in list(self._blind)[: max(0, len(self._blind) - _CACHE_SIZE)]:
            del self._blind[text]
        return rated

    def _read_blind(self) -> _Read:
        """The prompt in the same chat template, without an image."""
        chat = self.policy.chat
        try:
            ids = chat.ids(chat.rendered(self.prompt, None))
            inputs = {"input_ids": torch.tensor([ids], device=self.policy.device)}
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
            if hasattr(self.policy.model.model, "get_rope_index"):
                inputs["mm_token_type_ids"] = torch.zeros_like(inputs["input_ids"])  # all of it is text
            return self._read(inputs)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError) as error:
            raise PolicyError(
                f"the policy can't read a prompt without an image ({type(error).__name__}: {error}); "
                "set contrast: false in this likelihood reward"
            ) from error

    def _read(self, inputs: dict[str, Any]) -> _Read:
        """Read one prompt [1, L]."""
        model = self.policy.model
        positions = prompt_positions(model, inputs)
        out = model(**inputs, position_ids=as_position_ids(positions), use_cache=True, logits_to_keep=1)
        cross = inputs.get("cross_attention_mask")
        return _Read(
            cache=out.past_key_values,
            length=inputs["input_ids"].shape[1],
            first=torch.log_softmax(out.logits[0, -1].float(), dim=-1),
            following=int(positions.max()) + 1,
            axes=len(positions),
            cross_mask=None if cross is None else cross[:, -1:],
        )

    def _behind(self, prompt: _Read, texts: Sequence[str]) -> list[float | None]:
        """Mean log-probability of each text behind a prompt."""
        ids = [self.policy.answer_ids(text) for text in texts]
        sums = [float(prompt.first[tokens[0]]) if tokens else 0.0 for tokens in ids]
        by_width: dict[int, list[int]] = {}
        for index, tokens in enumerate(ids):
            if len(tokens) > 1:
                by_width.setdefault(-(-(len(tokens) - 1) // _WIDTH) * _WIDTH, []).append(index)
        for width, indices in by_width.items():
            for start in range(0, len(indices), _ROWS):
                part = indices[start : start + _ROWS]
                for index, more in zip(part, self._rest(prompt, [ids[i] for i in part], width), strict=True):
                    sums[index] += more
        return [total / len(tokens) if tokens else None for total, tokens in zip(sums, ids, strict=True)]

    def _rest(self, prompt: _Read, ids: Sequence[Sequence[int]], width: int) -> list[float]:
        """Summed log-probability of all tokens but the first, of at most `_ROWS` texts of at most `width` + 1 tokens."""
        device = self.policy.device
        fed = torch.full((_ROWS, width), self.policy.pad_id, device=device)
        wanted = torch.zeros((_ROWS, width), dtype=torch.long, device=device)
        for row, tokens in enumerate(ids):
            fed[row, : len(tokens) - 1] = torch.tensor(tokens[:-1])
            wanted[row, : len(tokens) - 1] = torch.tensor(tokens[1:])
        cache = copy.deepcopy(prompt.cache)
        # Not batch_repeat_interleave, which layers with recurrent states don't have.
        cache.reorder_cache(torch.zeros(_ROWS, dtype=torch.long, device=device))
        positions = torch.arange(prompt.following, prompt.following + width, device=device)
        more = (
            {}
            if prompt.cross_mask is None
            else {"cross_attention_mask": prompt.cross_mask.expand(_ROWS, width, -1, -1)}
        )
        out = self.policy.model(
            input_ids=fed,
            # Padding follows the text, so no token of the text attends to it.
            attention_mask=torch.ones((_ROWS, prompt.length + width), dtype=torch.long, device=device),
            position_ids=as_position_ids(positions.expand(prompt.axes, _ROWS, width)),
            past_key_values=cache,
            use_cache=True,
            **more,
        )
        sums = []
        for row, tokens in enumerate(ids):
            logits = out.logits[row, : len(tokens) - 1].float()
            chosen = logits.gather(1, wanted[row, : len(tokens) - 1, None])[:, 0]
            sums.append(float((chosen - logits.logsumexp(dim=-1)).double().sum()))
        return sums


def likelihood_scores(policy: Policy, prompt: str, *, contrast: bool, counters: Counter[str]) -> CachedScorer:
    """`Scores` by `OwnLikelihood`."""
    return CachedScorer(OwnLikelihood(policy, prompt, contrast=contrast), counters, "texts_scored_likelihood")
