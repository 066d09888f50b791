"""One token for each row of a batch, each row with its own temperature and its own draw."""

from __future__ import annotations

import torch


def draw_tokens(
    logits: torch.Tensor, temperature: torch.Tensor, top_p: torch.Tensor, uniform: torch.Tensor
) -> torch.Tensor:
    """Token ids [B] by inverse CDF: greedy where the temperature is 0, else nucleus sampling.

    Args:
        logits: [B, V].
        temperature: [B], 0 for greedy.
        top_p: [B] in (0, 1]: the smallest set of likeliest tokens with at least this mass is kept.
        uniform: [B] in [0, 1): the row's own draw, so that a row doesn't depend on its neighbours.
    """
    rows, _ = logits.shape
    if not temperature.shape == top_p.shape == uniform.shape == (rows,):
        raise ValueError(
            f"temperature {tuple(temperature.shape)}, top_p {tuple(top_p.shape)}, uniform {tuple(uniform.shape)}: "
            f"want [{rows}] each"
        )
    tokens = logits.argmax(dim=-1)
    sampled = temperature > 0
    if sampled.any():
        scaled = logits[sampled].double() / temperature[sampled].double()[:, None]
        # A stable order makes ties deterministic.
        probabilities, order = torch.sort(torch.softmax(scaled, dim=-1), dim=-1, descending=True, stable=True)
        reached = probabilities.cumsum(dim=-1)
        outside = reached - probabilities >= top_p[sampled].double()[:, None]
        reached = probabilities.masked_fill(outside, 0.0).cumsum(dim=-1)
        target = uniform[sampled].double()[:, None] * reached[:, -1:]
        index = torch.searchsorted(reached, target, right=True).clamp(max=logits.shape[1] - 1)
        tokens[sampled] = order.gather(1, index)[:, 0]
    return tokens
