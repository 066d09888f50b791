"""Temporal difference over sentences: targets, returns, and a loss that refuses to broadcast.

Departs from the released code of VisVM and ViMaR: their rewards have shape [B] and their values [B, 1], so the target becomes
[B, B] and every value is regressed on the batch's mean reward (`published_loss` does so on purpose, to be compared with); and
their last sentence is never trained, so nothing anchors the bootstrap. Here shapes are checked, and what follows the last
sentence is named:

- `mean_to_go`: V = w r + (1 - w) V', where w = 1 / (1 + gamma + ... + gamma^(n-1)) with n sentences to go, so w = 1 at the last
  one: the discounted mean of the rewards to come, on their scale whatever gamma and the caption's length.
- `zero_terminal`: V = r + gamma V', V' = 0 after the last sentence: the discounted sum of section 7.1.
- `optimal_stopping`: V = r + gamma max(0, V'), V' = 0 after the last sentence: the discounted sum of a caption that ends where
  going on is worth less than the end (Tsitsiklis and Van Roy 1999). A search may end, so what the policy would invent after
  a sentence does not count against that sentence. Rewards must be centred on what a sentence has to reach.
- `bootstrap_forever`: V = r + gamma V' without an end; last sentences are left out, as released.

V' is the next sentence's value for TD(0), what really followed for Monte Carlo, and a mixture for TD(lambda): each mode has one
backward step, and all three targets are made of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

TERMINAL_MODES = ("mean_to_go", "zero_terminal", "optimal_stopping", "bootstrap_forever")


@dataclass(frozen=True)
class Transition:
    """From a sentence to the next one of the same answer."""

    image: int  # index of the image
    text: str  # the state: the sentence, or all up to it
    following: str | None  # the next state; None after the last sentence
    rewards: tuple[float, ...]  # of the sentence and of all that follow it in the answer

    @property
    def reward(self) -> float:
        """Of the sentence."""
        return self.rewards[0]

    @property
    def to_go(self) -> int:
        """Sentences of the answer from this one on."""
        return len(self.rewards)

    @property
    def terminal(self) -> bool:
        """Whether this is the answer's last sentence."""
        return self.following is None


def transitions(
    answers: Sequence[tuple[int, Sequence[str], Sequence[float]]], *, state: str, mode: str
) -> list[Transition]:
    """Transitions of answers (image, sentences, rewards), answer by answer; `state` is `sentence` or `prefix`.

    In `bootstrap_forever` the last sentence of an answer appears as `following` only.
    """
    _check_mode(mode)
    steps = []
    for image, sentences, rewards in answers:
        states = [" ".join(sentences[: i + 1]) if state == "prefix" else text for i, text in enumerate(sentences)]
        for i in range(len(rewards)):
            following = states[i + 1] if i + 1 < len(states) else None
            if following is not None or mode != "bootstrap_forever":
                steps.append(Transition(image, states[i], following, tuple(rewards[i:])))
    return steps


def by_answer(steps: Sequence[Transition], *, mode: str) -> list[list[Transition]]:
    """`transitions` in their order, cut into one list an answer.

    Raises:
        ValueError: if they are not whole answers, each to its end.
    """
    last = 2 if mode == "bootstrap_forever" else 1
    answers: list[list[Transition]] = []
    begins = True
    for step in steps:
        if begins:
            answers.append([])
        elif step.rewards != answers[-1][-1].rewards[1:]:
            raise ValueError(f"{step.text!r} does not follow {answers[-1][-1].text!r}: want whole answers, in order")
        answers[-1].append(step)
        begins = step.to_go == last
    if not begins:
        raise ValueError(f"the answer of {answers[-1][0].text!r} breaks off: want whole answers")
    return answers


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
    if mode == "optimal_stopping":
        next_value = next_value.clamp(min=0.0)
    return torch.where(terminal, reward, reward + gamma * next_value)


def td_loss(value: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean squared error of V; the target carries no gradient (semi-gradient)."""
    if value.ndim != 1 or value.shape != target.shape:
        raise ValueError(f"value {tuple(value.shape)}, target {tuple(target.shape)}: want one [B]")
    return torch.nn.functional.mse_loss(value, target.detach())


def published_loss(
    value: torch.Tensor, reward: torch.Tensor, next_value: torch.Tensor, *, gamma: float
) -> torch.Tensor:
    """The loss that the released trainer computes by a broadcast, written out; for comparison only.

    Its rewards are [B] and its next values [B, 1], so its targets are [B, B]: target[i, j] = r_j + gamma V'_i. V_i is regressed
    on all of row i, that is on the batch's mean reward instead of its own: the reward of the sentence itself is lost.

    Args:
        value: [P], with gradient, of the batch or of a part of it.
        reward: [B], of the whole batch.
        next_value: [P] of the same network; no gradient flows into it.
        gamma: discount.
    """
    if value.ndim != 1 or reward.ndim != 1 or value.shape != next_value.shape or len(value) > len(reward):
        raise ValueError(
            f"value {tuple(value.shape)}, reward {tuple(reward.shape)}, next_value {tuple(next_value.shape)}: want one [B], "
            "or the whole batch's rewards with a part's values"
        )
    pairs = (len(value), len(reward))
    target = reward[None, :].expand(pairs) + gamma * next_value.detach()[:, None].expand(pairs)
    return torch.nn.functional.mse_loss(value[:, None].expand(pairs), target)


def mc_returns(rewards: Sequence[float], *, gamma: float, mode: str) -> list[float]:
    """The Monte-Carlo return from every sentence of one answer, on the scale of `mode`.

    `bootstrap_forever` has no end, so its return takes the last reward to repeat for ever.
    """
    return lambda_returns(rewards, [0.0] * (len(rewards) - 1), gamma=gamma, trace=1.0, mode=mode)


def lambda_returns(
    rewards: Sequence[float], next_values: Sequence[float], *, gamma: float, trace: float, mode: str
) -> list[float]:
    """The forward view's lambda-return from every sentence of one answer (Sutton and Barto, section 12.1).

    From the right: G = w r + (1 - w) M in `mean_to_go`, G = r + gamma M in the others, where M = (1 - trace) V' + trace G'
    mixes the next sentence's value with its return; in `optimal_stopping` M is at least 0. The last sentence's return is its
    reward; in `bootstrap_forever`, where it has none, the last reward repeated for ever, as in `mc_returns`. So 1 gives
    `mc_returns`, whatever the values (that are finite), and 0 gives `td_target` of every sentence but the last.

    Args:
        rewards: of the answer's n sentences.
        next_values: V of its second to last sentence, n - 1.
        gamma: discount.
        trace: lambda in [0, 1].
        mode: one of TERMINAL_MODES.
    """
    _check_mode(mode)
    if len(next_values) != max(0, len(rewards) - 1):
        raise ValueError(f"{len(rewards)} rewards, {len(next_values)} next values: want one less than rewards")
    if not rewards:
        return []
    returns = [rewards[-1] / (1 - gamma) if mode == "bootstrap_forever" else rewards[-1]]
    for reward, next_value in zip(reversed(rewards[:-1]), reversed(next_values), strict=True):
        mixed = (1 - trace) * next_value + trace * returns[-1]
        if mode == "optimal_stopping":
            mixed = max(0.0, mixed)
        if mode == "mean_to_go":
            share = reward_share(len(returns) + 1, gamma)
            returns.append(share * reward + (1 - share) * mixed)
        else:
            returns.append(reward + gamma * mixed)
    return returns[::-1]


def _check_mode(mode: str) -> None:
    if mode not in TERMINAL_MODES:
        raise ValueError(f"terminal mode is {mode!r}: want one of {', '.join(TERMINAL_MODES)}")
