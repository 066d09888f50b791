"""Fits a value function by TD(0), TD(lambda) or Monte Carlo: batches by seed, a Polyak target network, resumable at every step.

The value function is a callable on (image, text) pairs; the caller handles models, images and files.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from tasks.core.value.batches import answer_batches, batches
from tasks.core.value.td import (
    Transition,
    by_answer,
    lambda_returns,
    mc_returns,
    published_loss,
    reward_share,
    td_loss,
    td_target,
)

log = logging.getLogger(__name__)

Pair = tuple[int, str]  # (image, text)
ValueFn = Callable[[Sequence[Pair]], torch.Tensor]  # [B] with gradient

METHODS = ("td0", "td_lambda", "mc")


class FitState(NamedTuple):
    """All that training needs to go on: a step count and tensors by name."""

    step: int
    tensors: dict[str, torch.Tensor]


@dataclass
class ValueFit:
    """One fit: `parameters` learn so that `value` meets its target.

    `method` says what the target is: `td0`, the reward and the next value; `td_lambda`, the return that mixes all horizons by
    `trace`, for batches of whole answers (`answer_batches`); `mc`, the return as it was, for which nothing is bootstrapped.
    `published` replaces all of it by the released update, `published_loss` without a target network; it is given transitions
    of `bootstrap_forever`.
    """

    value: ValueFn
    parameters: dict[str, torch.nn.Parameter]
    gamma: float
    mode: str
    lr: float
    target_decay: float
    method: str = "td0"
    trace: float = 0.9
    published: bool = False
    micro_batch: int | None = None  # transitions in one forward; None: the whole batch, halved when memory runs out
    target: dict[str, torch.Tensor] = field(init=False)
    start: dict[str, torch.Tensor] = field(init=False)  # the parameters before any step, on the host
    optimizer: torch.optim.AdamW = field(init=False)
    micro_batch_is_given: bool = field(init=False)

    def __post_init__(self) -> None:
        """Start the target network as a copy and the optimizer without weight decay.

        Raises:
            ValueError: another method, or parameters that are not float32: small steps would be rounded away.
        """
        self.micro_batch_is_given = self.micro_batch is not None
        if self.method not in METHODS:
            raise ValueError(f"method is {self.method!r}: want one of {', '.join(METHODS)}")
        coarse = sorted({str(p.dtype) for p in self.parameters.values()} - {"torch.float32"})
        if coarse:
            raise ValueError(f"parameters of {', '.join(coarse)}: what learns has to be float32")
        self.start = {name: p.detach().to("cpu", copy=True) for name, p in self.parameters.items()}
        self.target = {}
        if self.bootstraps and not self.published:
            # In 16 bits a step of (1 - decay) of the way would mostly be rounded away.
            self.target = {name: p.detach().float().clone() for name, p in self.parameters.items()}
        self.optimizer = torch.optim.AdamW(list(self.parameters.values()), lr=self.lr, weight_decay=0.0)

    @property
    def bootstraps(self) -> bool:
        """Whether V's own values are part of its target."""
        return self.published or self.method != "mc"

    def step(self, batch: Sequence[Transition]) -> float:
        """One update; returns the batch's loss."""
        loss = self._accumulated(batch)
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), 1.0)
        self.optimizer.step()
        with torch.no_grad():
            for name, target in self.target.items():
                target.lerp_(self.parameters[name], 1 - self.target_decay)
        return loss

    def _accumulated(self, batch: Sequence[Transition]) -> float:
        """Gradients of the batch's mean loss, in parts that fit in memory; the loss."""
        if self.published and any(step.terminal for step in batch):
            raise ValueError("the released update trains no last sentence: give it transitions of bootstrap_forever")
        while True:
            self.optimizer.zero_grad(set_to_none=True)
            size = min(self.micro_batch or len(batch), len(batch))
            try:
                return self._in_parts(batch, size)
            except (torch.OutOfMemoryError, MemoryError):
                if self.micro_batch_is_given or size == 1:
                    raise
            # Outside the handler: the error's traceback holds on to the tensors of the failed part.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self.micro_batch = size // 2
            log.warning(
                "memory ran out: %d transitions a forward from now on (value.micro_batch_size)", self.micro_batch
            )

    def _in_parts(self, batch: Sequence[Transition], size: int) -> float:
        parts = [batch[start : start + size] for start in range(0, len(batch), size)]
        if self.published:
            with torch.no_grad():  # the same network, as it is now
                aims = torch.cat([self.value([(step.image, str(step.following)) for step in part]) for part in parts])
        else:
            aims = self.targets(batch, size)
        reward, total = torch.tensor([step.reward for step in batch]).to(aims), 0.0
        for part, aim in zip(parts, aims.split(size), strict=True):
            value = self.value([(step.image, step.text) for step in part])
            if self.published:
                loss = published_loss(value, reward.to(value), aim.to(value), gamma=self.gamma)
            else:
                loss = td_loss(value, aim.to(value.dtype))
            if len(parts) > 1:
                loss = loss * (len(part) / len(batch))
            loss.backward()
            total += float(loss.detach())
        return total

    def movement(self) -> float:
        """How far the parameters have moved from the start: root mean square over all of them."""
        moved = sum(float((p.detach().cpu() - self.start[n]).square().sum()) for n, p in self.parameters.items())
        return (moved / sum(p.numel() for p in self.parameters.values())) ** 0.5

    def targets(self, batch: Sequence[Transition], size: int | None = None) -> torch.Tensor:
        """What V of the batch is regressed on, [B] float32; a bootstrap comes from the target network.

        `size`: how many next states are read in one forward; None: all.
        """
        following = torch.zeros(0) if self.method == "mc" else self._next_values(batch, size or len(batch))
        compute = {"td0": self._one_step, "td_lambda": self._mixed, "mc": self._returns}[self.method]
        return compute(batch, following).to(next(iter(self.parameters.values())).device)

    def _one_step(self, batch: Sequence[Transition], next_values: torch.Tensor) -> torch.Tensor:
        terminal = torch.tensor([step.terminal for step in batch])
        reward = torch.tensor([step.reward for step in batch], dtype=torch.float32)
        share = torch.tensor([reward_share(step.to_go, self.gamma) for step in batch], dtype=torch.float32)
        return td_target(reward, next_values, terminal, gamma=self.gamma, mode=self.mode, share=share)

    def _mixed(self, batch: Sequence[Transition], next_values: torch.Tensor) -> torch.Tensor:
        """Lambda-returns of whole answers."""
        following, targets = iter(next_values.tolist()), list[float]()
        for answer in by_answer(batch, mode=self.mode):
            rewards = answer[0].rewards
            values = [next(following) for _ in answer][: len(rewards) - 1]  # what follows an end is nothing
            returns = lambda_returns(rewards, values, gamma=self.gamma, trace=self.trace, mode=self.mode)
            targets += returns[: len(answer)]  # without an end the last sentence is not trained
        return torch.tensor(targets, dtype=torch.float32)

    def _returns(self, batch: Sequence[Transition], next_values: torch.Tensor) -> torch.Tensor:
        returns = [mc_returns(step.rewards, gamma=self.gamma, mode=self.mode)[0] for step in batch]
        return torch.tensor(returns, dtype=torch.float32)

    def _next_values(self, batch: Sequence[Transition], size: int) -> torch.Tensor:
        """The target network's values of the next states, [B] float32; 0 where there is none."""
        following = [(step.image, step.following) for step in batch if step.following is not None]
        terminal = torch.tensor([step.terminal for step in batch])
        values = torch.zeros(len(batch), dtype=torch.float32)
        if following:
            with torch.no_grad(), self.as_target():
                parts = [following[start : start + size] for start in range(0, len(following), size)]
                values[~terminal] = torch.cat([self.value(part).float().cpu() for part in parts])
        return values

    @contextmanager
    def as_target(self) -> Iterator[None]:
        """Within the context the parameters are the target network's."""
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

    def plan(self, data: Sequence[Transition], batch_size: int, epochs: int, seed: int) -> list[np.ndarray]:
        """The batches that the method wants of `data`, which are whole answers in order."""
        if self.method != "td_lambda" or self.published:
            return batches(len(data), batch_size, epochs, seed)
        return answer_batches([len(steps) for steps in by_answer(data, mode=self.mode)], batch_size, epochs, seed)


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
