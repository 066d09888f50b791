"""How all models of the demo are trained: AdamW, one cycle of the learning rate, gradients clipped."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


class Descent:
    """The optimizer and schedule of one training."""

    def __init__(self, weights: Iterable[torch.nn.Parameter], *, lr: float, steps: int) -> None:
        """Of `weights`, with a peak rate of `lr` after a tenth of `steps`."""
        self.weights = list(weights)
        self.optimizer = torch.optim.AdamW(self.weights, lr=lr, weight_decay=0.01, betas=(0.9, 0.98))
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, lr, total_steps=steps, pct_start=0.1)

    def step(self, loss: Tensor) -> None:
        """One update along the gradients of a loss."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.update()

    def update(self) -> None:
        """One update along the gradients that are there, which are dropped."""
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
