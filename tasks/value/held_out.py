"""How a fitted value model is judged: its values of held-out sentences beside their targets and returns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage.schema import Value
from tasks.configs.value import ValueConfig
from tasks.value.learners import Learner

if TYPE_CHECKING:
    from tasks.core.value.fit import ValueFit


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
