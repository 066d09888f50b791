"""How a fitted value model is judged: its values of held-out sentences beside their targets and returns."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from storage.schema import Value
from tasks.configs.value import ValueConfig
from tasks.core.value import health as value_health
from tasks.core.value.ranking import held_out
from tasks.stage.quarantine import StageInputError
from tasks.value.learners import Answer, Labelled, Learner

if TYPE_CHECKING:
    from tasks.core.value.fit import ValueFit


log = logging.getLogger(__name__)


class ValueCollapsed(StageInputError):
    """The value model learned nothing that can guide a search."""


def held_out_values(
    fit: ValueFit, learner: Learner, labelled: Labelled, config: ValueConfig, batch_size: int
) -> list[Value]:
    """Value, TD target and Monte-Carlo return of every held-out sentence.

    `labelled` are the same answers with their sentences and their images' names, which a learner may have replaced.
    """
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
    texts = {answer.rollout_id: answer.sentences for answer in labelled.answers}
    for answer in answers:
        returns = mc_returns(answer.rewards, gamma=config.gamma, mode=config.terminal)
        image_id = labelled.image_ids[answer.image]
        for step, (reward, mc) in enumerate(zip(answer.rewards, returns, strict=True)):
            state = state_name(texts[answer.rollout_id], step, config)
            judged = float(values[at]), float(target[at]), mc
            rows.append(Value(answer.rollout_id, step, reward, *judged, image_id, state, config.gamma))
            at += 1
    return rows


def state_name(sentences: Sequence[str], step: int, config: ValueConfig) -> str:
    """What V reads beside the image at a sentence, as a digest: two sentences with the same one have the same value."""
    whole = config.reads == "policy_states" or config.state == "prefix"
    read = sentences[: step + 1] if whole else sentences[step : step + 1]
    return hashlib.sha256("\n".join(read).encode()).hexdigest()[:16]


def held_out_health(
    rows: Sequence[Value], losses: Sequence[float], answers: Sequence[Answer], config: ValueConfig
) -> tuple[dict[str, float], str]:
    """Facts about V on held-out sentences and about its training, and what is wrong with it: "" if it can guide.

    Raises:
        ValueCollapsed: V can't guide a search, and `value.action` is stop.
    """
    from tasks.core.value.td import mc_returns

    held = held_out(rows)
    learned = [answer.rewards for answer in answers if not answer.held_out]
    returns = np.array(
        [number for rewards in learned for number in mc_returns(rewards, gamma=config.gamma, mode=config.terminal)]
    )
    limits = value_health.Limits(config.min_spread, config.min_spearman)
    wrong = value_health.problem_of(held, losses, returns, limits)
    if wrong is None:
        return value_health.facts_of(held, losses), ""
    if config.action == "stop" or value_health.unusable(held):
        raise ValueCollapsed(
            f"the value model can't guide: {wrong}; or search without it: --set search.strategy=clip_prm; or go on with it "
            f"all the same: --set value.action=warn. (value.lr was {config.lr:g}.)"
        )
    log.warning("the value model can't guide: %s", wrong)
    return value_health.facts_of(held, losses), wrong
