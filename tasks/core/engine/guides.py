"""The two kinds of value model as judges of candidates, many jobs' candidates in one batch."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any, Protocol

import torch

from tasks.core.engine.architecture import CannotFork
from tasks.core.engine.decoder import Decoder
from tasks.core.engine.fallback import GenerateDecoder
from tasks.core.engine.kv_prefix import Place
from tasks.core.engine.prompts import Prompts
from tasks.core.models.sentence_scores import Images
from tasks.core.models.value import StateValue, ValueModel
from tasks.core.search.contract import Candidate

log = logging.getLogger(__name__)

_ANY = "A cat."  # an image is read with some text behind it, of which nothing is used


class Values(Protocol):
    """Values candidates."""

    def value(self, images: Images, asked: Sequence[tuple[Hashable, str, Candidate]]) -> list[float]:
        """One for each (job, text so far, candidate), in order."""

    def forget(self, job: Hashable) -> None:
        """The job is over."""


class TurnValues:
    """V of an image and a text in a user turn: the image is read once a job, then only the texts, all in one batch."""

    def __init__(self, model: ValueModel, counters: Counter[str]) -> None:
        """The backbone must be one whose cache can be forked; see `check_forkable`. Raises ValueError for a V of the mean."""
        if model.spec.pooling != "last":
            raise ValueError(f"pooling is {model.spec.pooling}: values behind a read image are of the last token only")
        self.model, self.counters = model, counters
        self._decoder, self._whole = Decoder(model.policy), WholeTurnValues(model, counters)
        self._prompts = Prompts(model.policy, answer_next=False)
        self._places: dict[Hashable, Place] = {}
        self._known: dict[Hashable, dict[str, float]] = {}  # job -> text -> V: the same texts are proposed again

    def value(self, images: Images, asked: Sequence[tuple[Hashable, str, Candidate]]) -> list[float]:
        """Values, as `Values` says."""
        texts = _texts(self.model, asked)
        new = [(job, text) for job, text in dict.fromkeys(texts) if text not in self._known.get(job, {})]
        tails = {one: tail for one in new if (tail := self._prompts.tail(one[1], _ANY)) is not None}
        # Without a text the turn may end with the image, and nothing can be read behind it.
        bare = [one for one in new if one not in tails]
        found = dict(zip(bare, self._whole.of_texts(images, bare), strict=True)) | self._behind_images(images, tails)
        for (job, text), one in found.items():
            self._known.setdefault(job, {})[text] = one
        return [self._known[job][text] for job, text in texts]

    @torch.inference_mode()
    def _behind_images(
        self, images: Images, tails: dict[tuple[Hashable, str], tuple[int, ...]]
    ) -> dict[tuple[Hashable, str], float]:
        if not tails:
            return {}
        before = self._tokens()
        self._read_images(images, list(dict.fromkeys(job for job, _ in tails)))
        items = [(self._places[job], tail) for (job, _), tail in tails.items()]
        places = self._decoder.read(items, layer=self.model.spec.layer, keep=False)
        values = self.model.head_of(torch.stack([one.state for one in places if one.state is not None]))
        self.counters["value_tokens"] += self._tokens() - before
        return dict(zip(tails, values.tolist(), strict=True))

    def _tokens(self) -> int:
        return self._decoder.counters["read_tokens"] + self._decoder.counters["prefill_tokens"]

    def _read_images(self, images: Images, jobs: Sequence[Hashable]) -> None:
        new = [job for job in jobs if job not in self._places]
        read = self._decoder.start([images[job] for job in new], [_ANY] * len(new), answer_next=False)
        for job, prompt in zip(new, read, strict=True):
            place = self._prompts.image_place(prompt, _ANY)
            assert place is not None, "a chat template that puts the text before the image"
            self._places[job] = place

    def forget(self, job: Hashable) -> None:
        """Drop what was read."""
        self._places.pop(job, None)
        self._known.pop(job, None)


class WholeTurnValues:
    """The same V by whole forwards: for a backbone whose cache can't be forked, a template that puts the text first, and a V of
    the mean over a text's tokens, of which the decoder keeps the last one's state only.
    """

    def __init__(self, model: ValueModel, counters: Counter[str]) -> None:
        self.model, self.counters = model, counters

    def value(self, images: Images, asked: Sequence[tuple[Hashable, str, Candidate]]) -> list[float]:
        """Values, as `Values` says."""
        return self.of_texts(images, _texts(self.model, asked))

    @torch.inference_mode()
    def of_texts(self, images: Images, asked: Sequence[tuple[Hashable, str]]) -> list[float]:
        """V of (job, text) pairs, in order."""
        if not asked:
            return []
        before = self.model.tokens
        values = self.model([images[job] for job, _ in asked], [text for _, text in asked]).tolist()
        self.counters["value_tokens"] += self.model.tokens - before
        return [float(one) for one in values]

    def forget(self, job: Hashable) -> None:
        """Nothing is kept."""


def _texts(model: ValueModel, asked: Sequence[tuple[Hashable, str, Candidate]]) -> list[tuple[Hashable, str]]:
    """(job, what V reads of it)."""
    prefix = model.spec.state == "prefix"
    return [(job, f"{before} {one.text}".strip() if prefix else one.text) for job, before, one in asked]


class StateValues:
    """V of the policy's own hidden states, which the decoder kept while it drew the candidates: no second network."""

    def __init__(self, head: StateValue, decoder: Decoder | GenerateDecoder) -> None:
        """The decoder must keep the states of the head's layer."""
        self.head, self.decoder = head, decoder

    @torch.inference_mode()
    def value(self, images: Images, asked: Sequence[tuple[Hashable, str, Candidate]]) -> list[float]:
        """Values, as `Values` says."""
        spoken: list[Any] = [one.place for *_, one in asked]
        # A sentence that reached its token limit was not read to its last token.
        missing = [i for i, one in enumerate(spoken) if one.state is None]
        again: Any = self.decoder.read
        read = again([(spoken[i].place(), ()) for i in missing], layer=self.head.spec.layer, keep=False)
        states = [one.state for one in spoken]
        for index, place in zip(missing, read, strict=True):
            states[index] = place.state
        return [float(one) for one in self.head(torch.stack([one for one in states if one is not None]))]

    def forget(self, job: Hashable) -> None:
        """Nothing is kept."""


def turn_values(model: ValueModel, counters: Counter[str]) -> TurnValues | WholeTurnValues:
    """The faster of the two that the backbone and the pooling allow."""
    if model.spec.pooling != "last":
        log.warning("value.pooling %s: each candidate's value reads the image again", model.spec.pooling)
        return WholeTurnValues(model, counters)
    prompts = Prompts(model.policy, answer_next=False)
    if prompts.tail("A dog.", _ANY) is None:
        return WholeTurnValues(model, counters)
    try:
        return TurnValues(model, counters)
    except CannotFork as why:
        log.warning("%s: each candidate's value reads the image again", why)
        return WholeTurnValues(model, counters)
