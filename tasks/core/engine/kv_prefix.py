"""What the policy has read up to a point of an answer, kept so that it is never read again.

A prefix links to its parent and holds the keys and values of the tokens after it. Two continuations of one prefix share it,
cropping is a slice, backtracking is using an older prefix, and memory is freed with the last search that holds a prefix.

A recurrent state can't be cropped. A prefix holds its own, and a span that was decoded after it holds none: if it is continued,
its tokens are read once more from the state at its start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from tasks.core.engine.layers import Layout

KV = tuple[torch.Tensor, ...]  # keys and values in the slabs of a layout, each [E, H, n, D]; or states


@dataclass(frozen=True, eq=False)
class Root:
    """What all prefixes of one prompt share."""

    layout: Layout
    cross_kv: KV = ()  # [H, T, D] keys and values of cross-attention layers
    cross_mask: torch.Tensor | None = None  # [images, tiles] that a text token may attend to


@dataclass(frozen=True, eq=False)
class KVPrefix:
    """A point from which the policy can continue.

    Its last token is `pending`: not in the cache yet, fed by the next step, which needs its logits. After an image nothing is
    pending, since an image's last token can't be fed again as text.
    """

    parent: KVPrefix | None
    root: Root
    kv: KV  # of the n tokens after the parent
    length: int  # tokens in the cache, all parents included
    pending: int | None
    position: torch.Tensor  # [axes] of the last token
    next_position: int  # of the token after it
    state: torch.Tensor | None = None  # [D] the policy's hidden state at the pending token, where requested
    recurrent: KV = ()  # the states of recurrent layers before the pending token, as the layout has them
    tokens: tuple[int, ...] = ()  # after the parent, the pending one included; of a prompt with its placeholders
    ends_prompt: bool = False  # its tokens and those of its parents are the prompt's; else the first parent's alone

    def ids(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(tokens of the prompt, tokens read or decoded after it)."""
        parts = self.chain()
        last = max((index for index, part in enumerate(parts) if part.ends_prompt), default=0)
        tokens = [[token for part in some for token in part.tokens] for some in (parts[: last + 1], parts[last + 1 :])]
        return tuple(tokens[0]), tuple(tokens[1])

    @property
    def before(self) -> int:
        """Tokens in the cache before its own."""
        return 0 if self.parent is None else self.parent.length

    def chain(self) -> list[KVPrefix]:
        """All its parents from the first on, then itself."""
        parts, prefix = [self], self.parent
        while prefix is not None:
            parts.append(prefix)
            prefix = prefix.parent
        return parts[::-1]

    def full_kv(self) -> KV:
        """Keys and values with those of all parents, each [E, H, length, D]."""
        parts = self.chain()
        return tuple(torch.cat(slabs, dim=2) for slabs in zip(*(part.kv for part in parts), strict=True))

    def extended(
        self, kv: KV, tokens: Sequence[int], state: torch.Tensor | None = None, recurrent: KV = ()
    ) -> KVPrefix:
        """The prefix after `tokens`; `kv`, each [E, H, n, D], of the pending token, then of all tokens but the last."""
        if not tokens:
            return self
        expected = len(tokens) - (self.pending is None)
        if kv[0].shape[2] != expected:
            raise ValueError(
                f"keys and values of {kv[0].shape[2]} tokens, want {expected}, for {len(tokens)} new tokens"
            )
        return KVPrefix(
            parent=self,
            root=self.root,
            kv=kv,
            length=self.length + expected,
            pending=tokens[-1],
            # The position of a text token is one number on all axes.
            position=torch.full_like(self.position, self.next_position + len(tokens) - 1),
            next_position=self.next_position + len(tokens),
            state=state,
            recurrent=recurrent,
            tokens=tuple(tokens),
        )

    def prefix(self) -> KVPrefix:
        """Itself: a prefix is continued in the same way as a decoded span."""
        return self

    def with_state(self, state: torch.Tensor | None) -> KVPrefix:
        """This prefix with the state of text that was read after it; not to be continued."""
        return replace(self, state=state)


@dataclass(eq=False)
class UnreadPrefix:
    """The end of a span of a model with recurrent layers, whose tokens are read when it is first continued."""

    start: KVPrefix
    tokens: tuple[int, ...]
    read: KVPrefix | None = None  # once it was

    def ids(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(tokens of the prompt, tokens read or decoded after it)."""
        prompt, answer = self.start.ids()
        return prompt, answer + self.tokens

    def prefix(self) -> UnreadPrefix:
        """Itself."""
        return self


@dataclass(frozen=True, eq=False)
class DecodedSpan:
    """Tokens decoded after a prefix; can be continued from its end or from any of its tokens."""

    start: KVPrefix
    tokens: tuple[int, ...]
    kv: KV | None  # of the token pending at the start, then of all tokens but the last; None: to be read again
    states: dict[int, torch.Tensor]  # number of tokens -> the hidden state [D] at the last of them
    _unread: list[UnreadPrefix] = field(default_factory=list, repr=False)

    def first(self, count: int) -> DecodedSpan:
        """The span of its first `count` tokens."""
        kv = None if self.kv is None else tuple(slab[:, :, :count] for slab in self.kv)
        return DecodedSpan(self.start, self.tokens[:count], kv, self.states)

    @property
    def state(self) -> torch.Tensor | None:
        """The hidden state [D] at the last token, if it was kept."""
        return self.states.get(len(self.tokens))

    def prefix(self) -> KVPrefix | UnreadPrefix:
        """The prefix at its end."""
        if self.kv is not None:
            return self.start.extended(self.kv, self.tokens, self.state)
        if not self.tokens:
            return self.start
        if not self._unread:
            self._unread.append(UnreadPrefix(self.start, self.tokens))
        return self._unread[0]
