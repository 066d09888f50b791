"""Targets and returns against brute force and against each other; convergence is tested in test_markov_chain."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.value.td import (
    TERMINAL_MODES,
    Transition,
    by_answer,
    lambda_returns,
    mc_returns,
    published_loss,
    reward_share,
    td_loss,
    td_target,
    transitions,
)

ANSWER = (3, ["A.", "B.", "C."], [0.5, -1.0, 2.0])
REWARDS = st.lists(st.floats(-2, 2), min_size=1, max_size=8)
GAMMAS = st.floats(0, 0.99)
VALUED = st.lists(st.tuples(st.floats(-2, 2), st.floats(-9, 9)), min_size=1, max_size=8)  # (reward, V) of each sentence


# Transitions


def test_a_sentence_leads_to_the_next_and_the_last_to_nothing() -> None:
    assert transitions([ANSWER], state="sentence", mode="zero_terminal") == [
        Transition(3, "A.", "B.", (0.5, -1.0, 2.0)),
        Transition(3, "B.", "C.", (-1.0, 2.0)),
        Transition(3, "C.", None, (2.0,)),
    ]


def test_a_transition_knows_its_reward_and_how_many_sentences_are_to_go() -> None:
    result = transitions([ANSWER], state="sentence", mode="zero_terminal")
    assert [(item.reward, item.to_go, item.terminal) for item in result] == [
        (0.5, 3, False),
        (-1.0, 2, False),
        (2.0, 1, True),
    ]


def test_a_prefix_is_the_whole_text_so_far() -> None:
    states = [transition.text for transition in transitions([ANSWER], state="prefix", mode="mean_to_go")]
    assert states == ["A.", "A. B.", "A. B. C."]


def test_the_published_mode_never_trains_the_last_sentence() -> None:
    result = transitions([ANSWER, (0, ["X."], [1.0])], state="sentence", mode="bootstrap_forever")
    assert [(item.text, item.following) for item in result] == [("A.", "B."), ("B.", "C.")]
    assert not any(item.terminal for item in result)


@pytest.mark.parametrize(("mode", "sizes"), [("mean_to_go", [3, 1, 3]), ("bootstrap_forever", [2, 2])])
def test_transitions_fall_into_their_answers_again(mode: str, sizes: list[int]) -> None:
    several = [ANSWER, (3, ["A."], [0.5]), ANSWER]  # an answer like the one before it is another one
    result = transitions(several, state="sentence", mode=mode)
    answers = by_answer(result, mode=mode)
    assert [len(answer) for answer in answers] == sizes
    assert [step for answer in answers for step in answer] == result


@pytest.mark.parametrize("part", [slice(0, 2), slice(1, 4), slice(0, 5, 2)])
def test_parts_of_answers_are_refused(part: slice) -> None:
    several = transitions([ANSWER, (0, ["X.", "Y."], [1.0, 2.0])], state="sentence", mode="mean_to_go")
    chosen = several[part] if part.start != 1 else [several[0], *several[2:4]]
    with pytest.raises(ValueError, match="want whole answers"):
        by_answer(chosen, mode="mean_to_go")


# Targets and returns


def by_definition(rewards: list[float], gamma: float, mode: str) -> list[float]:
    """The discounted sum, the discounted mean, or the sum with the last reward for ever."""
    result = []
    for start in range(len(rewards)):
        rest = rewards[start:]
        weights = [gamma**k for k in range(len(rest))]
        total = sum(w * r for w, r in zip(weights, rest, strict=True))
        if mode == "optimal_stopping":  # the best sum of all that begin here, this reward included
            total = max(sum(w * r for w, r in zip(weights[:n], rest[:n], strict=True)) for n in range(1, len(rest) + 1))
        if mode == "mean_to_go":
            total /= sum(weights)
        if mode == "bootstrap_forever":
            total += rest[-1] * gamma ** len(rest) / (1 - gamma)
        result.append(total)
    return result


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


@pytest.mark.parametrize("mode", TERMINAL_MODES)
@given(valued=VALUED, gamma=GAMMAS)
def test_with_trace_one_the_return_is_the_monte_carlo_one(
    mode: str, valued: list[tuple[float, float]], gamma: float
) -> None:
    rewards = [reward for reward, _ in valued]
    result = lambda_returns(rewards, [value for _, value in valued[1:]], gamma=gamma, trace=1.0, mode=mode)
    assert result == mc_returns(rewards, gamma=gamma, mode=mode)


@pytest.mark.parametrize("mode", TERMINAL_MODES)
@given(valued=VALUED, gamma=GAMMAS)
def test_with_trace_zero_the_return_is_the_target_of_td0(
    mode: str, valued: list[tuple[float, float]], gamma: float
) -> None:
    n = len(valued)
    rewards, values = [reward for reward, _ in valued], [value for _, value in valued]
    result = lambda_returns(rewards, values[1:], gamma=gamma, trace=0.0, mode=mode)
    target = td_target(
        torch.tensor(rewards, dtype=torch.float64),
        torch.tensor([*values[1:], 0.0], dtype=torch.float64),
        torch.arange(n) == n - 1,
        gamma=gamma,
        mode=mode,
        share=torch.tensor([reward_share(n - i, gamma) for i in range(n)], dtype=torch.float64),
    )
    # Without an end TD(0) has no target for the last sentence.
    counted = n - 1 if mode == "bootstrap_forever" else n
    assert result[:counted] == target.tolist()[:counted]


@pytest.mark.parametrize("mode", [mode for mode in TERMINAL_MODES if mode != "optimal_stopping"])  # max is not linear
@given(valued=VALUED, gamma=GAMMAS, trace=st.floats(0, 1))
def test_a_mixed_return_is_the_average_of_all_horizons(
    mode: str, valued: list[tuple[float, float]], gamma: float, trace: float
) -> None:
    rewards, values = [reward for reward, _ in valued], [value for _, value in valued]
    result = lambda_returns(rewards, values[1:], gamma=gamma, trace=trace, mode=mode)
    whole = mc_returns(rewards, gamma=gamma, mode=mode)

    def looks(start: int, steps: int) -> float:
        """The return that sees `steps` rewards and takes the value of the sentence after them for the rest."""
        at = start + steps
        if at >= len(rewards):
            return whole[start]
        seen = values[at]
        for i in reversed(range(start, at)):
            share = reward_share(len(rewards) - i, gamma)
            seen = share * rewards[i] + (1 - share) * seen if mode == "mean_to_go" else rewards[i] + gamma * seen
        return seen

    for start in range(len(rewards)):
        longest = len(rewards) - start
        weights = [(1 - trace) * trace ** (k - 1) for k in range(1, longest)] + [trace ** (longest - 1)]
        expected = sum(w * looks(start, k) for k, w in enumerate(weights, start=1))
        assert result[start] == pytest.approx(expected, abs=1e-6)


def test_a_value_for_every_sentence_but_the_first_is_wanted() -> None:
    with pytest.raises(ValueError, match="2 rewards, 2 next values"):
        lambda_returns([1.0, 2.0], [0.0, 0.0], gamma=0.9, trace=0.5, mode="zero_terminal")
    assert lambda_returns([], [], gamma=0.9, trace=0.5, mode="mean_to_go") == mc_returns(
        [], gamma=0.9, mode="mean_to_go"
    )
    assert mc_returns([], gamma=0.9, mode="mean_to_go") == []


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
    zero = torch.zeros(3)
    for share in (None, torch.zeros(3, 1)):
        with pytest.raises(ValueError, match="needs a share for every reward"):
            td_target(zero, zero, zero.bool(), gamma=0.9, mode="mean_to_go", share=share)


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


# As released

VALUES, NEXT = torch.tensor([0.3, -0.4, 1.1]), torch.tensor([0.5, 0.2, -0.7])
BATCH = torch.tensor([0.1, 0.9, -1.0])


@pytest.mark.filterwarnings("ignore:Using a target size")
def test_the_published_loss_is_that_of_the_silent_broadcast() -> None:
    silent = torch.nn.functional.mse_loss(VALUES[:, None], BATCH + 0.9 * NEXT[:, None])
    assert torch.equal(published_loss(VALUES, BATCH, NEXT, gamma=0.9), silent)


def test_elsewhere_in_tests_that_broadcast_is_an_error() -> None:
    with pytest.raises(UserWarning, match="Using a target size"):
        torch.nn.functional.mse_loss(VALUES[:, None], BATCH + 0.9 * NEXT[:, None])


def test_the_published_loss_pulls_every_value_to_the_mean_reward() -> None:
    values = VALUES.clone().requires_grad_()
    published_loss(values, BATCH, NEXT.clone().requires_grad_(), gamma=0.9).backward()
    assert torch.allclose(values.grad, 2 / 3 * (VALUES - (BATCH.mean() + 0.9 * NEXT)))
    shuffled = published_loss(VALUES, BATCH[[2, 0, 1]], NEXT, gamma=0.9)
    assert torch.allclose(shuffled, published_loss(VALUES, BATCH, NEXT, gamma=0.9)), "whose reward it is, is lost"


def test_the_published_loss_is_given_one_of_each() -> None:
    with pytest.raises(ValueError, match=r"next_value \(3, 1\): want one \[B\]"):
        published_loss(VALUES, BATCH, NEXT[:, None], gamma=0.9)


def test_optimal_stopping_forgets_what_is_worse_than_the_end() -> None:
    later = [0.45, -0.9, 0.2]
    assert mc_returns([0.4, *later], gamma=0.5, mode="zero_terminal")[0] == pytest.approx(0.425)
    assert mc_returns([0.4, *later], gamma=0.5, mode="optimal_stopping")[0] == pytest.approx(0.4 + 0.5 * 0.45)
    # Three sentences of .40 are worth more than one of .45, which the mean to go has the other way round.
    three, single = [mc_returns(rewards, gamma=0.9, mode="optimal_stopping")[0] for rewards in ([0.4] * 3, [0.45])]
    assert three > single
