"""Draw one token for each row of a batch, each row with its own temperature and its own random number."""

from __future__ import annotations

import torch

TOP_COUNTS = (64, 1024)  # a nucleus mostly lies within so many of the largest logits


def draw_tokens(
    logits: torch.Tensor, temperature: torch.Tensor, top_p: torch.Tensor, uniform: torch.Tensor
) -> torch.Tensor:
    """Token ids [B] by inverse CDF: greedy where the temperature is 0, else nucleus sampling.

    Args:
        logits: [B, V].
        temperature: [B], 0 for greedy.
        top_p: [B] in (0, 1]: the smallest set of likeliest tokens with at least this mass is largest.
        uniform: [B] in [0, 1): the row's own random number, so that a row doesn't depend on its neighbours.
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
        mass = top_p[sampled].double()[:, None]
        probabilities, order = _likeliest(torch.softmax(scaled, dim=-1), logits[sampled], mass)
        reached = probabilities.cumsum(dim=-1)
        outside = reached - probabilities >= mass
        reached = probabilities.masked_fill(outside, 0.0).cumsum(dim=-1)
        target = uniform[sampled].double()[:, None] * reached[:, -1:]
        index = torch.searchsorted(reached, target, right=True).clamp(max=order.shape[1] - 1)
        tokens[sampled] = order.gather(1, index)[:, 0]
    return tokens


def _likeliest(
    probabilities: torch.Tensor, logits: torch.Tensor, mass: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities [B, N] in descending order and their tokens, ties by token; at least all that `mass` [B, 1] needs.

    Sorting a whole vocabulary is slow, so the largest logits are tried first. Tokens left out may tie with the last one of
    them, but all more likely tokens are included.
    """
    for count in TOP_COUNTS:
        if logits.shape[1] > 2 * count:
            largest = torch.topk(logits, count, dim=-1, sorted=False).indices.sort(dim=-1).values
            some, order = torch.sort(probabilities.gather(1, largest), dim=-1, descending=True, stable=True)
            above = torch.where(some > some[:, -1:], some, 0.0).sum(dim=-1, keepdim=True)
            if (above > mass + 1e-9).all():  # the order of a sum changes its last bits
                return some, largest.gather(1, order)
    # A stable order makes ties deterministic.
    return torch.sort(probabilities, dim=-1, descending=True, stable=True)
