"""Value models as judges of candidates: image-and-text models and heads on the policy's states, batched over jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any, Protocol

import torch

from tasks.core.engine.architecture import CannotFork
from tasks.core.engine.decoder import Decoder
from tasks.core.engine.fallback import GenerateDecoder, warn_once
from tasks.core.engine.kv_prefix import KVPrefix
from tasks.core.engine.prompts import Prompts
from tasks.core.models.per_token import reads_both_ways
from tasks.core.models.sentence_scores import Images
from tasks.core.models.value import StateValue, ValueModel
from tasks.core.search.requests import Candidate
from tasks.core.text import joined

_PLACEHOLDER = "A cat."  # an image is read with some text after it, none of which is used


class Values(Protocol):
    """Estimates V of candidates."""

    def value(self, images: Images, items: Sequence[tuple[Hashable, str, Candidate]]) -> list[float]:
        """V of each (job, text so far, candidate), in order."""

    def forget(self, job: Hashable) -> None:
        """Drop what is cached for a finished job."""


class TurnValues:
    """V of an image and a text in a user turn: the image is read once per job, then only the texts, all in one batch."""

    def __init__(self, model: ValueModel, counters: Counter[str]) -> None:
        """Set up a decoder on the model's backbone.

        Raises:
            CannotFork: if the backbone's cache can't be forked.
            ValueError: if V pools over several tokens.
        """
        if model.spec.pooling != "last":
            raise ValueError(f"pooling is {model.spec.pooling}: values after a read image are of the last token only")
        self.model, self.counters = model, counters
        self._decoder, self._whole = Decoder(model.policy), WholeTurnValues(model, counters)
        self._prompts = Prompts(model.policy, answer_next=False)
        self._image_prefixes: dict[Hashable, KVPrefix | None] = {}  # None: nothing can be read behind this image
        self._known: dict[Hashable, dict[str, float]] = {}  # job -> text -> V: the same texts are proposed repeatedly

    def value(self, images: Images, items: Sequence[tuple[Hashable, str, Candidate]]) -> list[float]:
        """See `Values`."""
        texts = _texts(self.model, items)
        new = [(job, text) for job, text in dict.fromkeys(texts) if text not in self._known.get(job, {})]
        tails = {item: tail for item in new if (tail := self._prompts.tail(item[1], _PLACEHOLDER)) is not None}
        before = self._tokens()
        self._read_images(images, list(dict.fromkeys(job for job, _ in tails)))
        self.counters["value_tokens"] += self._tokens() - before
        tails = {item: tail for item, tail in tails.items() if self._image_prefixes[item[0]] is not None}
        # Without a text the turn may end with the image, and there is nothing to read after it.
        bare = [item for item in new if item not in tails]
        values = dict(zip(bare, self._whole.of_texts(images, bare), strict=True)) | self._after_images(tails)
        for (job, text), estimate in values.items():
            self._known.setdefault(job, {})[text] = estimate
        return [self._known[job][text] for job, text in texts]

    @torch.inference_mode()
    def _after_images(self, tails: dict[tuple[Hashable, str], tuple[int, ...]]) -> dict[tuple[Hashable, str], float]:
        items = [
            (prefix, tail) for (job, _), tail in tails.items() if (prefix := self._image_prefixes[job]) is not None
        ]
        if not items:
            return {}
        before = self._tokens()
        read = self._decoder.read(items, layer=self.model.spec.layer, keep=False)
        values = self.model.head_of(torch.stack([prefix.state for prefix in read if prefix.state is not None]))
        self.counters["value_tokens"] += self._tokens() - before
        return dict(zip(tails, values.tolist(), strict=True))

    def _tokens(self) -> int:
        return self._decoder.counters["read_tokens"] + self._decoder.counters["prefill_tokens"]

    @torch.inference_mode()
    def _read_images(self, images: Images, jobs: Sequence[Hashable]) -> None:
        new = [job for job in jobs if job not in self._image_prefixes]
        read = self._decoder.start([images[job] for job in new], [_PLACEHOLDER] * len(new), answer_next=False)
        for job, prompt in zip(new, read, strict=True):
            # The processor may write more behind the image than the template does (Gemma 3), in tokens joined to the text's.
            self._image_prefixes[job] = self._prompts.image_prefix(prompt, _PLACEHOLDER)
            if self._image_prefixes[job] is None:
                warn_once(self.model.policy, "%s: each value reads it again", "no text can be read behind an image")

    def forget(self, job: Hashable) -> None:
        """Drop the job's image and values."""
        self._image_prefixes.pop(job, None)
        self._known.pop(job, None)


class WholeTurnValues:
    """The same V by whole forwards: for a backbone whose cache can't be forked, a template that puts the text first, and a V of
    the mean over a text's tokens, since the decoder keeps the state of the last token only.
    """

    def __init__(self, model: ValueModel, counters: Counter[str]) -> None:
        self.model, self.counters = model, counters

    def value(self, images: Images, items: Sequence[tuple[Hashable, str, Candidate]]) -> list[float]:
        """See `Values`."""
        return self.of_texts(images, _texts(self.model, items))

    @torch.inference_mode()
    def of_texts(self, images: Images, items: Sequence[tuple[Hashable, str]]) -> list[float]:
        """V of (job, text) pairs, in order."""
        if not items:
            return []
        before = self.model.tokens
        values = self.model([images[job] for job, _ in items], [text for _, text in items]).tolist()
        self.counters["value_tokens"] += self.model.tokens - before
        return [float(estimate) for estimate in values]

    def forget(self, job: Hashable) -> None:
        """Nothing is cached."""


def _texts(model: ValueModel, items: Sequence[tuple[Hashable, str, Candidate]]) -> list[tuple[Hashable, str]]:
    """(job, the text that V reads)."""
    prefix = model.spec.state == "prefix"
    return [
        (job, joined([before, candidate.text], ["", candidate.space]) if prefix else candidate.text)
        for job, before, candidate in items
    ]


class StateValues:
    """V of the policy's own hidden states, which the decoder kept while drawing the candidates: no second network."""

    def __init__(self, head: StateValue, decoder: Decoder | GenerateDecoder) -> None:
        """The decoder must keep the states of the head's layer."""
        self.head, self.decoder = head, decoder

    @torch.inference_mode()
    def value(self, images: Images, items: Sequence[tuple[Hashable, str, Candidate]]) -> list[float]:
        """See `Values`."""
        spans: list[Any] = [candidate.handle for *_, candidate in items]
        # The last token of a sentence that reached its token limit has not been read.
        missing = [i for i, span in enumerate(spans) if span.state is None]
        reader: Any = self.decoder  # the prefixes of the two decoders differ in type
        read = reader.read([(spans[i].prefix(), ()) for i in missing], layer=self.head.spec.layer, keep=False)
        states = [span.state for span in spans]
        for index, prefix in zip(missing, read, strict=True):
            states[index] = prefix.state
        return [float(estimate) for estimate in self.head(torch.stack([s for s in states if s is not None]))]

    def forget(self, job: Hashable) -> None:
        """Nothing is cached."""


def turn_values(model: ValueModel, counters: Counter[str]) -> TurnValues | WholeTurnValues:
    """`TurnValues` if the backbone and the pooling allow it, else `WholeTurnValues`."""
    if model.spec.pooling != "last":
        warn_once(model.policy, "value.pooling %s: each candidate's value reads the image again", model.spec.pooling)
        return WholeTurnValues(model, counters)
    prompts = Prompts(model.policy, answer_next=False)
    if prompts.tail("A dog.", _PLACEHOLDER) is None or reads_both_ways(model.policy.model):
        return WholeTurnValues(model, counters)
    try:
        return TurnValues(model, counters)
    except CannotFork as why:
        warn_once(model.policy, "%s: each candidate's value reads the image again", why)
        return WholeTurnValues(model, counters)
