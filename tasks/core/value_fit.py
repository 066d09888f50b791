"""Fits a value function by TD(0): batches by seed, a Polyak target network, resumable at every step.

The value function is a callable on (image, text) pairs; models, images and files are the caller's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from tasks.core.seeds import seed_for
from tasks.core.td import Transition, reward_share, td_loss, td_target

Pair = tuple[int, str]  # (image, text)
ValueFn = Callable[[Sequence[Pair]], torch.Tensor]  # [B] with gradient


class FitState(NamedTuple):
    """All that training needs to go on: a step count and tensors by name."""

    step: int
    tensors: dict[str, torch.Tensor]


@dataclass
class ValueFit:
    """One fit: `parameters` learn so that `value` meets its TD target."""

    value: ValueFn
    parameters: dict[str, torch.nn.Parameter]
    gamma: float
    mode: str
    lr: float
    target_decay: float
    target: dict[str, torch.Tensor] = field(init=False)
    optimizer: torch.optim.AdamW = field(init=False)

    def __post_init__(self) -> None:
        """Start the target network as a copy and the optimizer without weight decay."""
        self.target = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.optimizer = torch.optim.AdamW(list(self.parameters.values()), lr=self.lr, weight_decay=0.0)

    def step(self, batch: Sequence[Transition]) -> float:
        """One update; returns the batch's loss."""
        target = self.targets(batch)
        value = self.value([(one.image, one.text) for one in batch])
        loss = td_loss(value, target.to(value.dtype))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), 1.0)
        self.optimizer.step()
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                self.target[name].lerp_(parameter, 1 - self.target_decay)
        return float(loss.detach())

    def targets(self, batch: Sequence[Transition]) -> torch.Tensor:
        """TD targets [B]; the bootstrap comes from the target network."""
        following = [(one.image, one.following) for one in batch if one.following is not None]
        terminal = torch.tensor([one.terminal for one in batch])
        reward = torch.tensor([one.reward for one in batch], dtype=torch.float32)
        next_value = torch.zeros(len(batch), dtype=torch.float32)
        if following:
            with torch.no_grad(), self.as_target():
                next_value[~terminal] = self.value(following).float().cpu()
        share = torch.tensor([reward_share(one.to_go, self.gamma) for one in batch], dtype=torch.float32)
        target = td_target(reward, next_value, terminal, gamma=self.gamma, mode=self.mode, share=share)
        return target.to(next(iter(self.parameters.values())).device)

    @contextmanager
    def as_target(self) -> Iterator[None]:
        """Let the parameters be the target network's for a moment."""
        learned = {name: parameter.data for name, parameter in self.parameters.items()}
        try:
            for name, parameter in self.parameters.items():
                parameter.data = self.target[name]
            yield
        finally:
            for name, parameter in self.parameters.items():
                parameter.data = learned[name]

    def state(self, step: int) -> FitState:
        """What to save."""
        tensors = {f"parameter/{n}": p.detach() for n, p in self.parameters.items()}
        tensors |= {f"target/{n}": t for n, t in self.target.items()}
        for index, slots in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam/{index}/{key}": torch.as_tensor(value) for key, value in slots.items()}
        return FitState(step, {name: tensor.cpu().contiguous() for name, tensor in tensors.items()})

    def restore(self, state: FitState) -> None:
        """Go on from what was saved."""
        slots: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in state.tensors.items():
            kind, _, rest = name.partition("/")
            if kind == "parameter":
                self.parameters[rest].data.copy_(tensor)
            elif kind == "target":
                self.target[rest].copy_(tensor)
            else:
                index, _, key = rest.partition("/")
                slots.setdefault(int(index), {})[key] = tensor
        saved = self.optimizer.state_dict()
        self.optimizer.load_state_dict({**saved, "state": slots})


def batches(count: int, batch_size: int, epochs: int, seed: int) -> list[np.ndarray]:
    """Index batches of all epochs, shuffled by seed; the last one of an epoch may be short."""
    found = []
    for epoch in range(epochs):
        order = np.random.Generator(np.random.Philox(key=seed_for("value batches", seed, epoch))).permutation(count)
        found += [order[start : start + batch_size] for start in range(0, count, batch_size)]
    return found


def run_fit(
    fit: ValueFit,
    data: Sequence[Transition],
    *,
    plan: Sequence[np.ndarray],
    start: int = 0,
    after_step: Callable[[int, float], None] = lambda step, loss: None,
) -> list[float]:
    """Go through `plan` from batch `start`; `after_step(steps done, loss)` may save. Returns the losses.

    Raises:
        FloatingPointError: at the first loss that is not finite.
    """
    losses = []
    for index in range(start, len(plan)):
        loss = fit.step([data[i] for i in plan[index]])
        if not np.isfinite(loss):
            raise FloatingPointError(f"step {index}: the TD loss is {loss}; lower value.lr ({fit.lr})")
        losses.append(loss)
        after_step(index + 1, loss)
    return losses
