"""Gradients as an optimizer is given them at its first step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook


def first_gradients(train: Callable[[], object]) -> list[torch.Tensor]:
    """Run a training; the gradients of its first step, in the optimizer's order."""
    seen: list[list[torch.Tensor]] = []

    def look(optimizer, args, kwargs) -> None:
        seen.append([p.grad.clone() for group in optimizer.param_groups for p in group["params"] if p.grad is not None])

    hook = register_optimizer_step_pre_hook(look)
    try:
        train()
    finally:
        hook.remove()
    return seen[0]
