"""One continuation while it is decoded: which tokens it has, whether it is over, where it is cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from tasks.core.models.policy import Policy
from tasks.core.search.contract import ANSWER, SENTENCE, Candidate
from tasks.core.seeds import Part, uniforms
from tasks.core.text import fewest_tokens, first_sentence_end, split_sentences

_MAY_CLOSE = frozenset(".!?:;\n…。\uff01\uff1f")  # the last two are the full-width ! and ?


@dataclass(frozen=True)
class Draw:
    """How one row draws: temperature 0 is greedy, and then the seed is not used."""

    temperature: float
    top_p: float
    seed: tuple[Part, ...]


@dataclass(frozen=True)
class Said:
    """What one row said."""

    tokens: tuple[int, ...]  # without an end token
    text: str  # stripped
    ended: bool  # the policy ended its answer here
    drawn: int  # tokens drawn, those past the end of what is kept and the end token included
    spoken: Any = None  # places.Spoken (or the fallback's own), where the row was to be kept


class Tokens:
    """A policy's tokens as text; what is asked for every token is looked up."""

    def __init__(self, policy: Policy) -> None:
        self.tokenizer, self.end_ids = policy.tokenizer, policy.end_ids
        self._size = max(len(policy.tokenizer), policy.model.get_input_embeddings().num_embeddings)
        self._closing: dict[frozenset[str], np.ndarray] = {}

    def text(self, tokens: Sequence[int]) -> str:
        """Decoded text, special tokens left out."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))

    def may_close(self, token: int, marks: frozenset[str]) -> bool:
        """Whether a token's text has one of the marks."""
        if marks not in self._closing:
            pieces = (self.tokenizer.decode([i]) for i in range(self._size))
            self._closing[marks] = np.fromiter((bool(marks & set(piece)) for piece in pieces), bool, self._size)
        return bool(self._closing[marks][token])


def marks_of(until: str) -> frozenset[str]:
    """The characters one of which is in the last token of a sentence, or of what `until` ends."""
    return _MAY_CLOSE if until in (SENTENCE, ANSWER) else frozenset(until[-1:])


def end_finder(until: str) -> Callable[[str], int | None]:
    """Where in a text a continuation ends; None: not yet. A sentence needs a token of look-ahead, a given text none."""
    if until == SENTENCE:
        return first_sentence_end
    if until == ANSWER:
        return lambda text: None

    def end(text: str) -> int | None:
        at = text.find(until)
        return at + len(until) if at >= 0 else None

    return end


@dataclass(eq=False)
class Row:
    """A continuation of `place`, to be decoded; `owner` is the caller's."""

    place: Any
    draw: Draw
    until: str
    limit: int
    keep: bool = True
    owner: Any = None
    tokens: list[int] = field(default_factory=list)  # drawn so far
    states: dict[int, torch.Tensor] = field(default_factory=dict)  # tokens said -> hidden state at the last of them
    closing: bool = False  # the last token may end what is said
    closed: bool = False  # some token may have
    kept: tuple[int, str, bool] | None = None  # once over: tokens kept, text, ended

    def __post_init__(self) -> None:
        """Draws in blocks: an answer is mostly far shorter than its limit."""
        self._marks, self._end = marks_of(self.until), end_finder(self.until)
        self._uniform = np.zeros(0)

    def uniform(self) -> float:
        """The draw of the next token, its own whatever is decoded beside it."""
        if not self.draw.temperature:
            return 0.0
        if len(self.tokens) >= len(self._uniform):
            self._uniform = uniforms(min(self.limit, len(self.tokens) + 64), *self.draw.seed)
        return float(self._uniform[len(self.tokens)])

    def again(self) -> Row:
        """The same row from its start: its draws are its own, so it says the same."""
        return Row(self.place, self.draw, self.until, self.limit, self.keep, self.owner)

    def take(self, token: int, names: Tokens) -> bool:
        """Append a token; whether the row is over."""
        last = len(self.tokens) + 1 == self.limit
        if token in names.end_ids:
            text = names.text(self.tokens)
            end = self._end(text)
            # An answer may end right after a second sentence began: that part is not this row's.
            self._keep(end, text, names, ended=end is None)
            self.tokens.append(token)
            return True
        self.tokens.append(token)
        # A whole answer's sentences are looked for when it is split.
        self.closing = (self.keep or self.until != ANSWER) and names.may_close(token, self._marks)
        # A sentence is over when the next one has begun; any other text when it is there.
        near = self.closed or (self.closing and self.until != SENTENCE)
        if last or (near and self.until != ANSWER):
            text = names.text(self.tokens)
            end = self._end(text)
            if end is not None or last:
                self._keep(end, text, names, ended=False)
        self.closed = self.closed or self.closing
        return self.kept is not None

    def _keep(self, end: int | None, text: str, names: Tokens, *, ended: bool) -> None:
        count = len(self.tokens)
        if end is not None:
            text = text[:end]
            # The fewest tokens whose text holds what is kept: all but one or two, so there is no need to search for them.
            while count > 1 and len(names.text(self.tokens[: count - 1]).rstrip()) >= end:
                count -= 1
        self.kept = (count, text.strip(), ended)

    def said(self, spoken: Any) -> Said:
        """What the row said, once it is over."""
        assert self.kept is not None
        count, text, ended = self.kept
        return Said(tuple(self.tokens[:count]), text, ended, len(self.tokens), spoken)


def sentences_of(answer: Candidate, text_of: Callable[[Sequence[int]], str]) -> list[Candidate]:
    """The sentences of a whole answer, each with the place behind it."""
    spoken = answer.place
    if spoken is None:
        raise ValueError("an answer whose places were not kept can't be split: say it with keep")
    sentences = split_sentences(text_of(spoken.tokens))
    found = []
    for index, sentence in enumerate(sentences):
        count = fewest_tokens(spoken.tokens, sentence.end, text_of)
        last = index + 1 == len(sentences)
        ended = answer.ended and last
        found.append(Candidate(sentence.text, answer.temperature, ended, 0, spoken if last else spoken.upto(count)))
    return found
