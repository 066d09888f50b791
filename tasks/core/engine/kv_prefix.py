"""What the policy has read up to a point of an answer, kept as keys and values so that it is never read again.

A prefix links to its parent and holds the keys and values of the tokens after it. Two continuations of one prefix share it,
cropping is a slice, backtracking is using an older prefix, and memory is freed with the last search that holds a prefix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True, eq=False)
class Root:
    """What all prefixes of one prompt share."""

    cross_kv: torch.Tensor | None = None  # [2C, H, T, D] keys and values of C cross-attention layers
    cross_mask: torch.Tensor | None = None  # [images, tiles] that a text token may attend to


@dataclass(frozen=True, eq=False)
class KVPrefix:
    """A point from which the policy can continue.

    Its last token is `pending`: not in the cache yet, fed by the next step, which needs its logits. After an image nothing is
    pending, since an image's last token can't be fed again as text.
    """

    parent: KVPrefix | None
    root: Root
    kv: torch.Tensor  # [2S, H, n, D] keys and values of S self-attention layers, of the n tokens after the parent
    length: int  # tokens in the cache, all parents included
    pending: int | None
    position: torch.Tensor  # [axes] of the last token
    next_position: int  # of the token after it
    state: torch.Tensor | None = None  # [D] the policy's hidden state at the pending token, where requested
    tokens: tuple[int, ...] = ()  # after the parent, the pending one included; of a prompt with its placeholders

    def ids(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(tokens of the prompt, tokens read or decoded after it)."""
        parts, prefix = [], self
        while prefix.parent is not None:
            parts.append(prefix.tokens)
            prefix = prefix.parent
        return prefix.tokens, tuple(token for part in reversed(parts) for token in part)

    def full_kv(self) -> torch.Tensor:
        """Keys and values with those of all parents, [2S, H, length, D]."""
        parts, prefix = [], self
        while True:
            parts.append(prefix.kv)
            if prefix.parent is None:
                return parts[0] if len(parts) == 1 else torch.cat(parts[::-1], dim=2)
            prefix = prefix.parent

    def extended(self, kv: torch.Tensor, tokens: Sequence[int], state: torch.Tensor | None = None) -> KVPrefix:
        """The prefix after `tokens`; `kv` [2S, H, n, D] of the pending token, then of all tokens but the last."""
        if not tokens:
            return self
        expected = len(tokens) - (self.pending is None)
        if kv.shape[2] != expected:
            raise ValueError(f"keys and values of {kv.shape[2]} tokens, want {expected}, for {len(tokens)} new tokens")
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
            tokens=tuple(tokens),
        )

    def prefix(self) -> KVPrefix:
        """Itself: a prefix is continued in the same way as a decoded span."""
        return self

    def with_state(self, state: torch.Tensor | None) -> KVPrefix:
        """This prefix with the state of text that was read after it; not to be continued."""
        return replace(self, state=state)


@dataclass(frozen=True, eq=False)
class DecodedSpan:
    """Tokens decoded after a prefix; can be continued from its end or from any of its tokens."""

    start: KVPrefix
    tokens: tuple[int, ...]
    kv: torch.Tensor  # [2S, H, len(tokens), D] of the token pending at the start, then of all tokens but the last
    states: dict[int, torch.Tensor]  # number of tokens -> the hidden state [D] at the last of them

    def first(self, count: int) -> DecodedSpan:
        """The span of its first `count` tokens."""
        return DecodedSpan(self.start, self.tokens[:count], self.kv[:, :, :count], self.states)

    @property
    def state(self) -> torch.Tensor | None:
        """The hidden state [D] at the last token, if it was kept."""
        return self.states.get(len(self.tokens))

    def prefix(self) -> KVPrefix:
        """The prefix at its end."""
        return self.start.extended(self.kv, self.tokens, self.state)
