"""How a fitted value model is judged: its values of held-out sentences beside their targets and returns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from storage.schema import Value
from tasks.configs.value import ValueConfig
from tasks.core.value import health as value_health
from tasks.stage.quarantine import StageInputError
from tasks.value.learners import Answer, Learner

if TYPE_CHECKING:
    from tasks.core.value.fit import ValueFit


class ValueCollapsed(StageInputError):
    """The value model learned nothing that can guide a search."""


def held_out_values(fit: ValueFit, learner: Learner, config: ValueConfig, batch_size: int) -> list[Value]:
    """Value, TD target and Monte-Carlo return of every held-out sentence."""
    import torch

    from tasks.core.value.td import mc_returns, reward_share, td_target, transitions

    answers = [answer for answer in learner.answers if answer.held_out]
    # Every sentence is judged, the last one too, whatever the mode trained on.
    states = transitions(
        [(a.image, a.sentences, a.rewards) for a in answers], state=learner.state, mode="zero_terminal"
    )
    pieces = []
    with torch.no_grad():
        for start in range(0, len(states), 4 * batch_size):
            batch = states[start : start + 4 * batch_size]
            pieces.append(fit.value([(state.image, state.text) for state in batch]).float().cpu())
    values = torch.cat(pieces) if pieces else torch.zeros(0)
    terminal = torch.tensor([state.terminal for state in states], dtype=torch.bool)
    target = td_target(
        torch.tensor([state.reward for state in states]),
        torch.cat([values[1:], torch.zeros(min(1, len(values)))]),  # the next sentence is the next row
        terminal,
        gamma=config.gamma,
        mode=config.terminal,
        share=torch.tensor([reward_share(state.to_go, config.gamma) for state in states]),
    )
    rows, at = [], 0
    for answer in answers:
        returns = mc_returns(answer.rewards, gamma=config.gamma, mode=config.terminal)
        for step, (reward, mc) in enumerate(zip(answer.rewards, returns, strict=True)):
            rows.append(Value(answer.rollout_id, step, reward, float(values[at]), float(target[at]), mc))
            at += 1
    return rows


def held_out_health(
    rows: Sequence[Value], losses: Sequence[float], answers: Sequence[Answer], config: ValueConfig
) -> dict[str, float]:
    """Facts about V on held-out sentences and about its training.

    Raises:
        ValueCollapsed: V can't guide a search.
    """
    from tasks.core.value.td import mc_returns

    image_of = {answer.rollout_id: answer.image for answer in answers}
    held = value_health.HeldOut(
        np.array([image_of[row.rollout_id] for row in rows]),
        np.array([row.value for row in rows]),
        np.array([row.td_target for row in rows]),
        np.array([row.mc_return for row in rows]),
    )
    learned = [answer.rewards for answer in answers if not answer.held_out]
    returns = np.array(
        [number for rewards in learned for number in mc_returns(rewards, gamma=config.gamma, mode=config.terminal)]
    )
    limits = value_health.Limits(config.min_spread, config.min_spearman)
    wrong = value_health.problem_of(held, losses, returns, limits)
    if wrong:
        raise ValueCollapsed(
            f"the value model can't guide: {wrong}; or search without it: --set search.strategy=clip_prm. "
            f"(value.lr was {config.lr:g}.)"
        )
    return value_health.facts_of(held, losses)
