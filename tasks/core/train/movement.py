"""How far training can have moved weights, from its learning rate and steps: AdamW's own bounds, wide.

AdamW without weight decay moves a weight in step t by lr_t * m/sqrt(v). By Cauchy-Schwarz |m|/sqrt(v) is at most
(1 - b1) / sqrt((1 - b2) (1 - b1^2/b2)), 7.3 for betas of .9 and .999, so no weight moves further than 7.3 times the sum of the
rates. Where gradients agree it is near 1, and where they are noise the steps add up like a random walk, to the root of the sum
of squares; three hundredths of that leave room for weights that no example touches (embeddings of other words).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

_BETA1, _BETA2 = 0.9, 0.999
MOST = (1 - _BETA1) / math.sqrt((1 - _BETA2) * (1 - _BETA1**2 / _BETA2))
LEAST = 0.03


class Expected(NamedTuple):
    """Least and greatest movement of a weight, root mean square over all that learn, in the weight's own unit."""

    least: float
    most: float


def expected_movement(rates: Sequence[float]) -> Expected:
    """What steps at these learning rates can do."""
    return Expected(LEAST * math.sqrt(sum(rate * rate for rate in rates)), MOST * sum(rates))


def linear_rates(lr: float, steps: int, warmup: int) -> list[float]:
    """Learning rate of each step: linear rise over `warmup` steps, from 0, then linear decay to 0."""
    rise = [lr * step / warmup for step in range(min(warmup, steps))]
    return rise + [lr * (steps - step) / max(1, steps - warmup) for step in range(warmup, steps)]


def refusal(moved: float, expected: Expected, norm: float, setting: str) -> str | None:
    """Why a movement is not what the training can have done; None: it is.

    Args:
        moved: root mean square over the weights that learn.
        expected: of the steps that were taken.
        norm: root mean square of those weights before, which makes the message's figures relative; 0: they started at zero.
        setting: name and value of the learning rate's setting.
    """
    if expected.least <= moved <= expected.most:
        return None
    unit, what = (norm, "of their norm") if norm else (1.0, "a weight (root mean square)")
    return (
        f"training moved the weights by {moved / unit:.2g} {what}; with {setting} its steps move them by "
        f"{expected.least / unit:.2g} to {expected.most / unit:.2g}"
    )
