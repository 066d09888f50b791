"""Temporal difference over sentences: targets, returns, and a loss that refuses to broadcast.

Departs from the released code of VisVM and ViMaR: their rewards have shape [B] and their values [B, 1], so the target becomes
[B, B] and every value is regressed on the batch's mean reward; and their last sentence is never trained, so nothing anchors the
bootstrap. Here shapes are checked, and what follows the last sentence is named:

- `mean_to_go`: V = w r + (1 - w) V', where w = 1 / (1 + gamma + ... + gamma^(n-1)) with n sentences to go, so w = 1 at the last
  one: the discounted mean of the rewards to come, on their scale whatever gamma and the caption's length.
- `zero_terminal`: V = r + gamma V', V' = 0 after the last sentence: the discounted sum of section 7.1.
- `bootstrap_forever`: V = r + gamma V' without an end; last sentences are left out, as released.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

TERMINAL_MODES = ("mean_to_go", "zero_terminal", "bootstrap_forever")


@dataclass(frozen=True)
class Transition:
    """From a sentence to the next one of the same answer."""

    image: int  # index of the image
    text: str  # the state: the sentence, or all up to it
    following: str | None  # the next state; None after the last sentence
    reward: float  # of the sentence
    to_go: int = 1  # sentences of the answer from this one on

    @property
    def terminal(self) -> bool:
        """Whether this is the answer's last sentence."""
        return self.following is None


def transitions(
    answers: Sequence[tuple[int, Sequence[str], Sequence[float]]], *, state: str, mode: str
) -> list[Transition]:
    """Transitions of answers (image, sentences, rewards); `state` is `sentence` or `prefix`.

    In `bootstrap_forever` the last sentence of an answer appears as `following` only.
    """
    _check_mode(mode)
    found = []
    for image, sentences, rewards in answers:
        states = [" ".join(sentences[: i + 1]) if state == "prefix" else one for i, one in enumerate(sentences)]
        for i, reward in enumerate(rewards):
            following = states[i + 1] if i + 1 < len(states) else None
            if following is not None or mode != "bootstrap_forever":
                found.append(Transition(image, states[i], following, reward, len(states) - i))
    return found


def reward_share(to_go: int, gamma: float) -> float:
    """The weight w of the next reward in a discounted mean over `to_go` rewards."""
    return 1.0 / sum(gamma**k for k in range(to_go))


def td_target(
    reward: torch.Tensor,
    next_value: torch.Tensor,
    terminal: torch.Tensor,
    *,
    gamma: float,
    mode: str,
    share: torch.Tensor | None = None,
) -> torch.Tensor:
    """What V(s) is regressed on, [B].

    Args:
        reward: [B] of the sentence.
        next_value: [B] of the next one, anything where terminal.
        terminal: [B] bool, the last sentence of its answer.
        gamma: discount.
        mode: one of TERMINAL_MODES.
        share: [B] `reward_share` of every row; `mean_to_go` needs it.
    """
    _check_mode(mode)
    if reward.ndim != 1 or not reward.shape == next_value.shape == terminal.shape:
        raise ValueError(
            f"reward {tuple(reward.shape)}, next_value {tuple(next_value.shape)}, terminal {tuple(terminal.shape)}: "
            "want one [B]"
        )
    if mode == "mean_to_go":
        if share is None or share.shape != reward.shape:
            raise ValueError(f"mean_to_go needs a share for every reward: want {tuple(reward.shape)}")
        return torch.where(terminal, reward, share * reward + (1 - share) * next_value)
    return torch.where(terminal, reward, reward + gamma * next_value)


def td_loss(value: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean squared TD error; the target carries no gradient (semi-gradient TD(0))."""
    if value.ndim != 1 or value.shape != target.shape:
        raise ValueError(f"value {tuple(value.shape)}, target {tuple(target.shape)}: want one [B]")
    return torch.nn.functional.mse_loss(value, target.detach())


def mc_returns(rewards: Sequence[float], *, gamma: float, mode: str) -> list[float]:
    """The Monte-Carlo return from every sentence of one answer, on the scale of `mode`.

    `bootstrap_forever` has no end, so its return takes the last reward to repeat for ever.
    """
    _check_mode(mode)
    returns: list[float] = []
    for reward in reversed(rewards):
        if not returns:
            returns.append(reward / (1 - gamma) if mode == "bootstrap_forever" else reward)
        elif mode == "mean_to_go":
            share = reward_share(len(returns) + 1, gamma)
            returns.append(share * reward + (1 - share) * returns[-1])
        else:
            returns.append(reward + gamma * returns[-1])
    return returns[::-1]


def _check_mode(mode: str) -> None:
    if mode not in TERMINAL_MODES:
        raise ValueError(f"terminal mode is {mode!r}: want one of {', '.join(TERMINAL_MODES)}")
