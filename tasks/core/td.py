"""Temporal difference over sentences: targets, returns, and a loss that refuses to broadcast.

Departs from the released code of VisVM and ViMaR: their rewards have shape [B] and their values [B, 1], so the target becomes
[B, B] and every value is regressed on the batch's mean reward; and their last sentence is never trained, so nothing anchors the
bootstrap. Here shapes are checked, and what follows the last sentence is named:

- `mean_to_go`: V = (1 - gamma) r + gamma V', and V = r at the last sentence: a weighted mean of the rewards to come, on the
  scale of the rewards whatever gamma and the caption's length.
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
                found.append(Transition(image, states[i], following, reward))
    return found


def td_target(
    reward: torch.Tensor, next_value: torch.Tensor, terminal: torch.Tensor, *, gamma: float, mode: str
) -> torch.Tensor:
    """What V(s) is regressed on: [B] from reward [B], next_value [B] (anything where terminal), terminal [B] bool."""
    _check_mode(mode)
    if reward.ndim != 1 or not reward.shape == next_value.shape == terminal.shape:
        raise ValueError(
            f"reward {tuple(reward.shape)}, next_value {tuple(next_value.shape)}, terminal {tuple(terminal.shape)}: "
            "want one [B]"
        )
    if mode == "mean_to_go":
        return torch.where(terminal, reward, (1 - gamma) * reward + gamma * next_value)
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
            returns.append((1 - gamma) * reward + gamma * returns[-1])
        else:
            returns.append(reward + gamma * returns[-1])
    return returns[::-1]


def _check_mode(mode: str) -> None:
    if mode not in TERMINAL_MODES:
        raise ValueError(f"terminal mode is {mode!r}: want one of {', '.join(TERMINAL_MODES)}")
