"""One continuation while it is decoded: its tokens so far, whether it is finished, and where it is cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch

from tasks.core.models.decoding_rules import TokenHistory
from tasks.core.models.policy import Policy
from tasks.core.search.requests import ANSWER, SENTENCE, Candidate
from tasks.core.seeds import Part, uniforms
from tasks.core.text import PARTIAL, fewest_tokens, first_sentence_end, split_sentences, whole_characters

_MAY_CLOSE = frozenset(".!?:;\n…。\uff01\uff1f")  # the last two are the full-width ! and ?
_CONTEXT = 16  # tokens before a row, decoded with it to see the white space between


@dataclass(frozen=True)
class Draw:
    """How one row draws tokens; temperature 0 is greedy and doesn't use the seed."""

    temperature: float
    top_p: float
    seed: tuple[Part, ...]


@dataclass(frozen=True)
class Completion:
    """The text that one row decoded."""

    tokens: tuple[int, ...]  # without an end token
    text: str  # stripped
    ended: bool  # the policy ended its answer here
    drawn: int  # tokens drawn, those past the cut and the end token included
    span: Any = None  # DecodedSpan (the fallback: PromptState), if the row was to be kept
    space: str = " "  # white space between the answer before and this text


class TokenTexts:
    """A policy's tokens as text, and its rules for the next one; which tokens may end a sentence is computed once."""

    def __init__(self, policy: Policy) -> None:
        self.tokenizer, self.end_ids, self.rules = policy.tokenizer, policy.end_ids, policy.rules
        self._size = max(len(policy.tokenizer), policy.model.get_input_embeddings().num_embeddings)
        self._closing: dict[frozenset[str], np.ndarray] = {}

    def text(self, tokens: Sequence[int]) -> str:
        """Decoded text without special tokens."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))

    def ruled(self, logits: torch.Tensor, rows: Sequence[Row], temperature: torch.Tensor) -> torch.Tensor:
        """Logits [B, V] under the checkpoint's rules, changed in place where possible; temperature [B] of each row."""
        histories = [row.history() for row in rows] if self.rules.needs_history else []
        return self.rules.for_sampling(self.rules(logits, histories), temperature)

    def may_close(self, token: int, marks: frozenset[str]) -> bool:
        """Whether a token's text contains one of the marks."""
        if marks not in self._closing:
            pieces = (self.tokenizer.decode([i]) for i in range(self._size))
            # A token that is part of a character may complete a mark outside ASCII.
            closing = marks | {PARTIAL} if any(not mark.isascii() for mark in marks) else marks
            self._closing[marks] = np.fromiter((bool(closing & set(piece)) for piece in pieces), bool, self._size)
        return bool(self._closing[marks][token])


def marks_of(until: str) -> frozenset[str]:
    """The characters of which the last token of a sentence, or of a continuation that ends with `until`, contains one."""
    return _MAY_CLOSE if until in (SENTENCE, ANSWER) else frozenset(until[-1:])


def end_finder(until: str) -> Callable[[str], int | None]:
    """A function of a text: where a continuation ends in it; None: not yet. Only a sentence needs a token of look-ahead."""
    if until == SENTENCE:
        return first_sentence_end
    if until == ANSWER:
        return lambda text: None

    def end(text: str) -> int | None:
        at = text.find(until)
        return at + len(until) if at >= 0 else None

    return end


class Cut(NamedTuple):
    """Where a finished row is cut."""

    tokens: int  # kept
    text: str  # stripped
    ended: bool  # the policy ended its answer here
    space: str  # between the answer before and the text


@dataclass(eq=False)
class Row:
    """A continuation of `prefix`, to be decoded; `owner` is for the caller."""

    prefix: Any
    draw: Draw
    until: str
    limit: int
    keep: bool = True
    owner: Any = None
    fresh: bool = (
        False  # all of the prefix is a prompt; else the answer follows what its first part, the prompt, has read
    )
    tokens: list[int] = field(default_factory=list)  # drawn so far
    states: dict[int, torch.Tensor] = field(
        default_factory=dict
    )  # number of tokens -> hidden state [D] at the last of them
    closing: bool = False  # the last token may end the continuation
    closed: bool = False  # an earlier token may have ended it
    cut: Cut | None = None  # once finished

    def __post_init__(self) -> None:
        """Random numbers are drawn in blocks: an answer is mostly far shorter than its limit."""
        self._marks, self._end = marks_of(self.until), end_finder(self.until)
        self._uniform = np.zeros(0)
        self._history: TokenHistory | None = None

    def before(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(tokens of the prompt, tokens of the answer before this row)."""
        if self.prefix is None:
            return (), ()
        prompt, answer = self.prefix.ids()
        return (prompt + answer, ()) if self.fresh else (prompt, answer)

    def start_history(self, ids: Sequence[int]) -> None:
        """Give all tokens before this row, where its prefix doesn't know them."""
        _, answer = self.before()
        self._history, self._counted = TokenHistory(ids[: len(ids) - len(answer)], answer), 0

    def history(self) -> TokenHistory:
        """The prompt and the answer so far."""
        if self._history is None:
            self._history, self._counted = TokenHistory(*self.before()), 0
        self._history.extend(self.tokens[self._counted :])
        self._counted = len(self.tokens)
        return self._history

    def uniform(self) -> float:
        """The random number in [0, 1) for the next token, independent of other rows."""
        if not self.draw.temperature:
            return 0.0
        if len(self.tokens) >= len(self._uniform):
            self._uniform = uniforms(min(self.limit, len(self.tokens) + 64), *self.draw.seed)
        return float(self._uniform[len(self.tokens)])

    def restarted(self) -> Row:
        """The same row from its start; it will decode the same tokens, since it has its own seed."""
        return Row(self.prefix, self.draw, self.until, self.limit, self.keep, self.owner, self.fresh)

    def take(self, token: int, token_texts: TokenTexts) -> bool:
        """Append a token; returns whether the row is finished."""
        last = len(self.tokens) + 1 == self.limit
        if token in token_texts.end_ids:
            # An answer may end right after a second sentence began, which doesn't belong to this row.
            self._cut(token_texts, ended=True)
            self.tokens.append(token)
            return True
        self.tokens.append(token)
        # A whole answer is split into sentences later, and only if it is kept.
        self.closing = (self.keep or self.until != ANSWER) and token_texts.may_close(token, self._marks)
        # A sentence is finished when the next one has begun; a given text as soon as it appears.
        near = self.closed or (self.closing and self.until != SENTENCE)
        near = near and self.until != ANSWER
        if last or (near and self._end(token_texts.text(self.tokens)) is not None):
            self._cut(token_texts, ended=False)
        self.closed = self.closed or self.closing
        return self.cut is not None

    def _cut(self, token_texts: TokenTexts, *, ended: bool) -> None:
        """Finish the row; `ended`: the policy has ended its answer."""
        count = whole_characters(self.tokens, len(self.tokens), token_texts.text)
        text = token_texts.text(self.tokens[:count])
        end = self._end(text)
        if end is not None:
            text = text[:end]
            # The fewest tokens whose text begins with the cut text: all but one or two, so a linear search will do.
            while count > 1:
                fewer = whole_characters(self.tokens, count - 1, token_texts.text)
                if not fewer or token_texts.text(self.tokens[:fewer])[:end] != text:
                    break
                count = fewer
        self.cut = Cut(count, text.strip(), ended and end is None, self._space(count, token_texts))

    def _space(self, count: int, token_texts: TokenTexts) -> str:
        """White space between the answer before and this row's first `count` tokens; none at an answer's start."""
        before = self.before()[1][-_CONTEXT:]
        if not before:
            return ""
        stem = token_texts.text(before).rstrip()
        rest = token_texts.text([*before, *self.tokens[:count]])[len(stem) :]
        return rest[: len(rest) - len(rest.lstrip())]

    def completion(self, span: Any) -> Completion:
        """The completion of a finished row."""
        assert self.cut is not None
        count, text, ended, space = self.cut
        return Completion(tuple(self.tokens[:count]), text, ended, len(self.tokens), span, space)


def sentences_of(answer: Candidate, text_of: Callable[[Sequence[int]], str]) -> list[Candidate]:
    """The sentences of a whole answer, each of which can be continued.

    Raises:
        ValueError: for an answer that was not kept.
    """
    span = answer.handle
    if span is None:
        raise ValueError("an answer that was not kept can't be split: propose it with keep")
    text = text_of(span.tokens)
    sentences = split_sentences(text)
    candidates = []
    for index, sentence in enumerate(sentences):
        count = fewest_tokens(span.tokens, sentence.end, text_of)
        last = index + 1 == len(sentences)
        handle = span if last else span.first(count)
        space = text[sentences[index - 1].end : sentence.start] if index else answer.space
        candidates.append(Candidate(sentence.text, answer.temperature, answer.ended and last, 0, handle, space))
    return candidates
