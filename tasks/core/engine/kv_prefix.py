"""Places in answers: what the model has read up to a point, kept so that it need never be read again.

A place is a link to the place before it plus the keys and values of the tokens since then. Forking is naming a place twice,
cropping is a slice, going back is using an older place, and memory is freed with the last search that holds a place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True, eq=False)
class Root:
    """What all places of one prompt share."""

    fixed: torch.Tensor | None = None  # [2C, H, T, D] of C cross-attention layers
    cross_mask: torch.Tensor | None = None  # [images, tiles] what a text token may look at


@dataclass(frozen=True, eq=False)
class Place:
    """A point from which the policy can go on.

    Its last token is `pending`: in no cache yet, fed by the next step, which wants its logits. Behind an image nothing is
    pending: an image's last token can't be fed again as text.
    """

    before: Place | None
    root: Root
    kv: torch.Tensor  # [2S, H, n, D] keys and values of S self-attention layers, of this part's n tokens
    length: int  # tokens in kv, all parts together
    pending: int | None
    position: torch.Tensor  # [axes] of the last token
    following: int  # position of the token after it
    state: torch.Tensor | None = None  # [D] the policy's hidden state at the pending token, where it was asked for

    def path(self) -> torch.Tensor:
        """Keys and values of all parts, [2S, H, length, D]."""
        parts, place = [], self
        while True:
            parts.append(place.kv)
            if place.before is None:
                return parts[0] if len(parts) == 1 else torch.cat(parts[::-1], dim=2)
            place = place.before

    def after(self, kv: torch.Tensor, tokens: Sequence[int], state: torch.Tensor | None = None) -> Place:
        """The place after `tokens` were said here; `kv` [2S, H, n, D]: what was pending, then all of them but the last."""
        if not tokens:
            return self
        expected = len(tokens) - (self.pending is None)
        if kv.shape[2] != expected:
            raise ValueError(f"keys and values of {kv.shape[2]} tokens, want {expected}, for {len(tokens)} tokens said")
        return Place(
            before=self,
            root=self.root,
            kv=kv,
            length=self.length + expected,
            pending=tokens[-1],
            # The position of a text token is one number on all axes.
            position=torch.full_like(self.position, self.following + len(tokens) - 1),
            following=self.following + len(tokens),
            state=state,
        )

    def place(self) -> Place:
        """Itself: a place is gone on from as what was said is."""
        return self

    def unkept(self, state: torch.Tensor | None) -> Place:
        """This place with a state that was read behind it; not to be gone on from."""
        return replace(self, state=state)


@dataclass(frozen=True, eq=False)
class Spoken:
    """What was said from a place, to be gone on from at its end or at any of its tokens."""

    start: Place
    tokens: tuple[int, ...]
    kv: torch.Tensor  # [2S, H, len(tokens), D], what was pending at the start, then all tokens but the last
    states: dict[int, torch.Tensor]  # tokens said -> the hidden state at the last of them

    def upto(self, count: int) -> Spoken:
        """The first `count` tokens of it."""
        return Spoken(self.start, self.tokens[:count], self.kv[:, :, :count], self.states)

    @property
    def state(self) -> torch.Tensor | None:
        """The hidden state [D] at the last token, where it was kept."""
        return self.states.get(len(self.tokens))

    def place(self) -> Place:
        """The place behind it."""
        return self.start.after(self.kv, self.tokens, self.state)
