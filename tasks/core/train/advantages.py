"""What PPO computes from rewards, values and log-probabilities: pure functions of tensors.

Answers are aligned at their end: row i of [N, T] holds its answer's n tokens in its last n columns, `mask` is 1 there.
"""

from __future__ import annotations

from typing import NamedTuple

import torch


class Gains(NamedTuple):
    """How much better each token was than the critic expected."""

    advantages: torch.Tensor  # [N, T]
    returns: torch.Tensor  # [N, T], what the critic learns


class Experience(NamedTuple):
    """What is known of answers before the policy learns from them; [N, T] each."""

    old_log_probs: torch.Tensor
    reference: torch.Tensor  # log-probabilities under the policy before training
    advantages: torch.Tensor
    returns: torch.Tensor
    mask: torch.Tensor


class Losses(NamedTuple):
    """Of one minibatch, means over its tokens."""

    policy: torch.Tensor
    value: torch.Tensor
    clipped: torch.Tensor  # share of tokens whose ratio was clipped


def generalised_advantages(
    rewards: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, *, gamma: float, lam: float
) -> Gains:
    """GAE (Schulman et al. 2016, arXiv 1506.02438) of rewards and values [N, T]; nothing follows an answer's last token.

    `values[:, t]` is what the critic expects before token t.
    """
    _same_shape(rewards=rewards, values=values, mask=mask)
    advantages = torch.zeros_like(rewards)
    following, carried = torch.zeros_like(rewards[:, 0]), torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        carried = rewards[:, t] + gamma * following - values[:, t] + gamma * lam * carried
        advantages[:, t], following = carried, values[:, t]
    advantages = advantages * mask
    return Gains(advantages, (advantages + values) * mask)


def whiten(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean 0 and deviation 1 over the tokens of the mask; [N, T] -> [N, T]."""
    _same_shape(values=values, mask=mask)
    count = mask.sum()
    mean = (values * mask).sum() / count
    deviation = (((values - mean) * mask).square().sum() / count).sqrt()
    return (values - mean) * mask / (deviation + 1e-8)


def ppo_losses(log_probs: torch.Tensor, values: torch.Tensor, experience: Experience, *, clip: float) -> Losses:
    """The clipped surrogate (Schulman et al. 2017, arXiv 1707.06347) and the critic's squared error.

    Args:
        log_probs: of the tokens under the policy as it is, [B, T].
        values: of the critic, [B, T].
        experience: of the same answers, [B, T].
        clip: how far the probability ratio may move from 1.

    Raises:
        ValueError: for tensors of different shapes.
    """
    _same_shape(log_probs=log_probs, values=values, **experience._asdict())
    mask, advantages, returns = experience.mask, experience.advantages, experience.returns
    count = mask.sum()
    ratio = torch.exp((log_probs - experience.old_log_probs) * mask)
    bounded = ratio.clamp(1 - clip, 1 + clip)
    gain = torch.minimum(ratio * advantages, bounded * advantages)
    clipped = ((ratio - bounded).abs() > 0) * mask
    return Losses(
        policy=-(gain * mask).sum() / count,
        value=0.5 * ((values - returns).square() * mask).sum() / count,
        clipped=clipped.sum() / count,
    )


class LeastSquares:
    """A linear critic fitted in one step to states and returns: ridge regression from sums, so no state is kept."""

    def __init__(self, width: int, ridge: float = 1e-2) -> None:
        """`width`: of a state; `ridge`: share of each component's sum of squares that is added to it.

        width / M is added to it; otherwise few tokens would be fitted without error, and no advantage would be left.
        """
        self.ridge = ridge
        self._squares = torch.zeros(width + 1, width + 1, dtype=torch.float64)
        self._products = torch.zeros(width + 1, dtype=torch.float64)

    def add(self, states: torch.Tensor, returns: torch.Tensor) -> None:
        """Add states [M, D] with their returns [M]."""
        if states.shape[:1] != returns.shape:
            raise ValueError(f"states {tuple(states.shape)}, returns {tuple(returns.shape)}: want [M, D] and [M]")
        x = torch.cat([states, torch.ones_like(states[:, :1])], dim=1).double().cpu()
        self._squares += x.T @ x  # the last component counts the states
        self._products += x.T @ returns.double().cpu()

    def solve(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(weight [D], bias []) in float32; the bias is not shrunk."""
        width = len(self._products) - 1
        sums = self._squares.diagonal()
        sums = sums.clamp(min=1e-8 * float(sums.max()))  # a component may always be zero
        penalty = (self.ridge + width / float(self._squares[width, width])) * sums
        penalty[width] = 0.0
        solved = torch.linalg.solve(self._squares + torch.diag(penalty), self._products).float()
        return solved[:width], solved[width]


def _same_shape(**tensors: torch.Tensor) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if len(set(shapes.values())) > 1 or any(len(shape) != 2 for shape in shapes.values()):
        raise ValueError(f"{shapes}: want one shape [N, T]")
