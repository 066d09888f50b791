"""Targets, returns and convergence, against brute force and against chains whose values are known."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.td import TERMINAL_MODES, Transition, mc_returns, reward_share, td_loss, td_target, transitions
from tasks.core.value_fit import ValueFit

ANSWER = (3, ["A.", "B.", "C."], [0.5, -1.0, 2.0])
REWARDS = st.lists(st.floats(-2, 2), min_size=1, max_size=8)
GAMMAS = st.floats(0, 0.99)


# Transitions


def test_a_sentence_leads_to_the_next_and_the_last_to_nothing() -> None:
    assert transitions([ANSWER], state="sentence", mode="zero_terminal") == [
        Transition(3, "A.", "B.", 0.5, 3),
        Transition(3, "B.", "C.", -1.0, 2),
        Transition(3, "C.", None, 2.0, 1),
    ]


def test_a_prefix_is_all_that_was_said() -> None:
    states = [one.text for one in transitions([ANSWER], state="prefix", mode="mean_to_go")]
    assert states == ["A.", "A. B.", "A. B. C."]


def test_the_published_mode_never_trains_the_last_sentence() -> None:
    found = transitions([ANSWER, (0, ["X."], [1.0])], state="sentence", mode="bootstrap_forever")
    assert [(one.text, one.following) for one in found] == [("A.", "B."), ("B.", "C.")]
    assert not any(one.terminal for one in found)


# Targets and returns


def by_definition(rewards: list[float], gamma: float, mode: str) -> list[float]:
    """The discounted sum, the discounted mean, or the sum with the last reward for ever."""
    found = []
    for start in range(len(rewards)):
        rest = rewards[start:]
        weights = [gamma**k for k in range(len(rest))]
        total = sum(w * r for w, r in zip(weights, rest, strict=True))
        if mode == "mean_to_go":
            total /= sum(weights)
        if mode == "bootstrap_forever":
            total += rest[-1] * gamma ** len(rest) / (1 - gamma)
        found.append(total)
    return found


@pytest.mark.parametrize("mode", TERMINAL_MODES)
@given(rewards=REWARDS, gamma=GAMMAS)
def test_returns_are_those_of_the_definition(mode: str, rewards: list[float], gamma: float) -> None:
    assert mc_returns(rewards, gamma=gamma, mode=mode) == pytest.approx(by_definition(rewards, gamma, mode), abs=1e-6)


@pytest.mark.parametrize("mode", TERMINAL_MODES)
@given(rewards=REWARDS, gamma=GAMMAS)
def test_the_return_is_the_fixed_point_of_the_target(mode: str, rewards: list[float], gamma: float) -> None:
    n = len(rewards)
    returns = torch.tensor(mc_returns(rewards, gamma=gamma, mode=mode), dtype=torch.float64)
    terminal = torch.arange(n) == n - 1
    if mode == "bootstrap_forever":  # the last sentence is followed by one just like it
        terminal = torch.zeros(n, dtype=torch.bool)
    target = td_target(
        torch.tensor(rewards, dtype=torch.float64),
        torch.cat([returns[1:], returns[-1:]]),
        terminal,
        gamma=gamma,
        mode=mode,
        share=torch.tensor([reward_share(n - i, gamma) for i in range(n)], dtype=torch.float64),
    )
    assert target.tolist() == pytest.approx(returns.tolist(), abs=1e-6)


@given(REWARDS, GAMMAS)
def test_a_mean_to_go_stays_on_the_scale_of_the_rewards(rewards: list[float], gamma: float) -> None:
    for value in mc_returns(rewards, gamma=gamma, mode="mean_to_go"):
        assert min(rewards) - 1e-9 <= value <= max(rewards) + 1e-9


def test_what_follows_the_last_sentence_is_ignored() -> None:
    reward, last = torch.tensor([1.0, 1.0]), torch.tensor([False, True])
    target = td_target(reward, torch.tensor([2.0, float("nan")]), last, gamma=0.5, mode="zero_terminal")
    assert target.tolist() == [2.0, 1.0]


@pytest.mark.parametrize(
    ("reward", "following", "terminal"),
    [((3,), (3, 1), (3,)), ((3, 1), (3, 1), (3, 1)), ((3,), (2,), (3,)), ((3,), (3,), (1,)), ((), (), ())],
)
def test_targets_of_different_shapes_are_refused(reward: tuple, following: tuple, terminal: tuple) -> None:
    with pytest.raises(ValueError, match=r"want one \[B\]"):
        td_target(
            torch.zeros(reward), torch.zeros(following), torch.zeros(terminal, dtype=torch.bool),
            gamma=0.9, mode="zero_terminal",
        )  # fmt: skip


def test_a_mean_needs_its_shares() -> None:
    one = torch.zeros(3)
    for share in (None, torch.zeros(3, 1)):
        with pytest.raises(ValueError, match="needs a share for every reward"):
            td_target(one, one, one.bool(), gamma=0.9, mode="mean_to_go", share=share)


def test_an_unknown_mode_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'sum': want one of mean_to_go, zero_terminal"):
        mc_returns([1.0], gamma=0.9, mode="sum")


def test_a_loss_of_a_column_and_a_row_is_refused() -> None:
    with pytest.raises(ValueError, match=r"value \(3, 1\), target \(3,\)"):
        td_loss(torch.zeros(3, 1), torch.zeros(3))


def test_no_gradient_flows_into_the_target() -> None:
    value, target = torch.ones(2, requires_grad=True), torch.zeros(2, requires_grad=True)
    td_loss(value, target).backward()
    assert value.grad is not None
    assert target.grad is None


# Convergence. Two kinds of answer with a common start; how often each is drawn gives the chain its probabilities.

GAMMA = 0.8
ANSWERS = [(0, ["a", "b", "d"], [0.2, 1.0, -0.5])] * 2 + [(0, ["a", "c"], [0.2, -1.0])]
STATES = ["a", "b", "c", "d"]
EXACT = {  # solved by hand; P(b|a) = 2/3
    "zero_terminal": {"d": -0.5, "c": -1.0, "b": 1 + 0.8 * -0.5, "a": 0.2 + 0.8 * (2 / 3 * 0.6 + 1 / 3 * -1.0)},
    "mean_to_go": {
        "d": -0.5,
        "c": -1.0,
        "b": (1 + 0.8 * -0.5) / 1.8,
        "a": (2 * (0.2 + 0.8 * 1 + 0.64 * -0.5) / 2.44 + (0.2 + 0.8 * -1.0) / 1.8) / 3,
    },
}


def fitted(mode: str, steps: int = 1500, decay: float = 0.5) -> dict[str, float]:
    table = torch.nn.Parameter(torch.zeros(len(STATES)))
    fit = ValueFit(
        value=lambda pairs: table[[STATES.index(text) for _, text in pairs]],
        parameters={"table": table},
        gamma=GAMMA,
        mode=mode,
        lr=0.02,
        target_decay=decay,
    )
    data = transitions(ANSWERS, state="sentence", mode=mode)
    for step in range(steps):
        fit.optimizer.param_groups[0]["lr"] = 0.02 * (1 - step / steps)
        fit.step(data)
    return dict(zip(STATES, table.tolist(), strict=True))


@pytest.mark.parametrize("mode", EXACT)
def test_td_converges_to_the_exact_values_of_a_chain(mode: str) -> None:
    assert fitted(mode) == pytest.approx(EXACT[mode], abs=2e-3)


def test_without_an_end_nothing_holds_the_last_value() -> None:
    values = fitted("bootstrap_forever")
    assert values["d"] == values["c"] == 0  # as they started: no transition trains them
    assert values["b"] == pytest.approx(1.0, abs=2e-3)


def published_fit(steps: int = 1500) -> dict[str, float]:
    """The released update: values [B, 1] against a target that becomes [B, B]."""
    table = torch.nn.Parameter(torch.zeros(len(STATES), 1))
    optimizer = torch.optim.AdamW([table], lr=0.02, weight_decay=0.0)
    data = transitions(ANSWERS, state="sentence", mode="zero_terminal")
    at = [STATES.index(one.text) for one in data]
    following = [STATES.index(one.following or one.text) for one in data]
    going = torch.tensor([[float(not one.terminal)] for one in data])  # [B, 1]
    reward = torch.tensor([one.reward for one in data])  # [B]
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.02 * (1 - step / steps)
        value, target = table[at], reward + GAMMA * table[following].detach() * going  # [B, 1], [B, B]
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(value, target).backward()
        optimizer.step()
    return dict(zip(STATES, table[:, 0].tolist(), strict=True))


def test_the_published_broadcast_converges_to_something_else() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = published_fit()
    # Every value is regressed on the mean reward of the batch: what ends well and what ends badly get the same.
    mean_reward = np.mean([reward for _, _, rewards in ANSWERS for reward in rewards])
    assert values["c"] == pytest.approx(mean_reward, abs=1e-3)
    assert values["d"] == pytest.approx(mean_reward, abs=1e-3)
    assert abs(values["b"] - values["c"]) < 0.1
    assert EXACT["zero_terminal"]["b"] - EXACT["zero_terminal"]["c"] > 1.5
    errors = [abs(values[state] - exact) for state, exact in EXACT["zero_terminal"].items()]
    assert np.mean(errors) > 0.4


def test_in_tests_a_silent_broadcast_is_an_error() -> None:
    with pytest.raises(UserWarning, match="Using a target size"):
        published_fit(steps=1)
