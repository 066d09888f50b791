"""The fit goes on where it was, tensor by tensor; its target network lags; it never goes on from nonsense."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from tasks.core.value.batches import answer_batches, batches
from tasks.core.value.fit import METHODS, FitState, ValueFit, run_fit
from tasks.core.value.td import (
    TERMINAL_MODES,
    Transition,
    by_answer,
    lambda_returns,
    mc_returns,
    published_loss,
    transitions,
)

ANSWERS = [
    (i % 3, [f"s{4 * i + k}" for k in range(n)], [float(np.sin(4 * i + k)) for k in range(n)])
    for i, n in enumerate([4, 4, 1, 4, 3, 4, 2, 4, 4, 4, 2, 4])
]
DATA = transitions(ANSWERS, state="sentence", mode="mean_to_go")
PLAN = batches(len(DATA), 6, epochs=3, seed=1)


def small_net() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))


def new_fit(decay: float = 0.9, lr: float = 0.01, mode: str = "mean_to_go", **options) -> ValueFit:
    net, requests = small_net(), []
    fit = ValueFit(
        value=lambda pairs: (
            requests.append(list(pairs))
            or net(torch.tensor([[float(i), float(text[1:]) / 10] for i, text in pairs]))[:, 0]
        ),
        parameters=dict(net.named_parameters()),
        gamma=0.9,
        mode=mode,
        lr=lr,
        target_decay=decay,
        **options,
    )
    fit.requests = requests  # type: ignore[attr-defined]
    return fit


def equal(first: FitState, other: FitState) -> bool:
    return first.tensors.keys() == other.tensors.keys() and all(
        torch.equal(first.tensors[name], other.tensors[name]) for name in first.tensors
    )


KINDS = [*({"method": method} for method in METHODS), {"published": True}]


def data_for(options: dict) -> list[Transition]:
    mode = "bootstrap_forever" if options.get("published") else "mean_to_go"
    return transitions(ANSWERS, state="sentence", mode=mode)


@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("stop", [1, 7, -1])
def test_a_resumed_fit_ends_with_bit_equal_tensors(stop: int, options: dict) -> None:
    whole, data = new_fit(**options), data_for(options)
    plan = whole.plan(data, 6, epochs=3, seed=1)
    stop %= len(plan)
    losses = run_fit(whole, data, plan=plan)

    begun, saved = new_fit(**options), []
    first = run_fit(begun, data, plan=plan[:stop])
    saved.append(FitState(stop, {name: t.clone() for name, t in begun.state(stop).tensors.items()}))
    resumed = new_fit(**options)
    resumed.restore(saved[0])
    rest = run_fit(resumed, data, plan=plan, start=stop)

    assert equal(resumed.state(len(plan)), whole.state(len(plan)))
    assert first + rest == losses


# What V is regressed on


def test_the_target_of_td0_is_the_reward_and_the_next_value_in_one_pass() -> None:
    fit, batch = new_fit(), [DATA[i] for i in PLAN[0]]
    values = dict(zip((step.following for step in batch), next_values(fit, batch), strict=True))
    fit.requests.clear()
    fit.step(batch)
    followed = [(step.image, step.following) for step in batch if step.following]
    assert fit.requests == [followed, [(step.image, step.text) for step in batch]]
    expected = [
        step.reward if step.terminal
        else lambda_returns(list(step.rewards), [values[step.following], *[0.0] * (step.to_go - 2)],
                            gamma=0.9, trace=0.0, mode="mean_to_go")[0]
        for step in batch
    ]  # fmt: skip
    assert new_fit().targets(batch).tolist() == pytest.approx(expected, abs=1e-6)


def next_values(fit: ValueFit, batch: list[Transition]) -> list[float]:
    """The network's values of what follows; of nothing where nothing does."""
    return [float(fit.value([(step.image, step.following)]).detach()) if step.following else 0.0 for step in batch]


@pytest.mark.parametrize("mode", TERMINAL_MODES)
def test_mixed_returns_of_a_batch_are_those_of_its_answers_in_one_pass(mode: str) -> None:
    data = transitions(ANSWERS, state="sentence", mode=mode)
    fit = new_fit(mode=mode, method="td_lambda", trace=0.6)
    (batch, *_) = ([data[i] for i in part] for part in fit.plan(data, 9, epochs=1, seed=3))
    values = iter(next_values(fit, batch))
    fit.requests.clear()
    result = fit.targets(batch).tolist()
    assert fit.requests == [[(step.image, step.following) for step in batch if step.following]]
    expected: list[float] = []
    for answer in by_answer(batch, mode=mode):
        rewards = list(answer[0].rewards)
        of_answer = [next(values) for _ in answer][: len(rewards) - 1]
        returns = lambda_returns(rewards, of_answer, gamma=0.9, trace=0.6, mode=mode)
        expected += returns[: len(answer)]
    assert len(expected) == len(batch) > 4
    assert result == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("mode", TERMINAL_MODES)
def test_monte_carlo_reads_no_other_value_and_keeps_no_target_network(mode: str) -> None:
    fit, data = new_fit(mode=mode, method="mc"), transitions(ANSWERS, state="sentence", mode=mode)
    batch = [data[i] for i in (5, 0, 9)]
    fit.step(batch)
    assert fit.requests == [[(step.image, step.text) for step in batch]]
    assert fit.target == {}
    expected = [mc_returns(list(step.rewards), gamma=0.9, mode=mode)[0] for step in batch]
    assert fit.targets(batch).tolist() == pytest.approx(expected, abs=1e-6)


def test_as_published_the_network_bootstraps_from_itself_and_the_batch_is_mixed_up() -> None:
    options = {"published": True}
    fit, batch = new_fit(mode="bootstrap_forever", **options), data_for(options)[:8]
    assert fit.target == {}
    values, following = (fit.value([(step.image, text(step)) for step in batch]) for text in (
        lambda item: item.text, lambda item: item.following))  # fmt: skip
    reward = torch.tensor([step.reward for step in batch])
    expected = published_loss(values, reward, following, gamma=0.9).detach()
    assert fit.step(batch) == pytest.approx(float(expected), abs=1e-6)
    other = new_fit(mode="bootstrap_forever", method="mc", **options)
    assert other.step(batch) == pytest.approx(float(expected), abs=1e-6), "published is so whatever else is set"


def test_as_published_no_last_sentence_is_trained() -> None:
    with pytest.raises(ValueError, match="give it transitions of bootstrap_forever"):
        new_fit(published=True).step(DATA[:4])


def test_an_unknown_method_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'sarsa': want one of td0, td_lambda, mc"):
        new_fit(method="sarsa")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_lowers_its_loss(method: str) -> None:
    fit = new_fit(method=method)
    losses = run_fit(fit, DATA, plan=fit.plan(DATA, 10, epochs=40, seed=0))
    assert np.mean(losses[-8:]) < 0.8 * np.mean(losses[:8])


# Batches of whole answers


@pytest.mark.parametrize("size", [2, 6, 10, 1000])
def test_batches_of_answers_hold_each_answer_whole_and_once_an_epoch(size: int) -> None:
    lengths = [4, 1, 3, 8, 2, 5]
    plan = answer_batches(lengths, size, epochs=2, seed=0)
    middle = next(i for i in range(len(plan)) if sum(map(len, plan[:i])) == sum(lengths))
    for epoch in (plan[:middle], plan[middle:]):
        assert sorted(np.concatenate(epoch)) == list(range(sum(lengths)))
    ends = np.cumsum(lengths)
    for batch in plan:
        assert len(batch) <= size or len(batch) in lengths
        for step, after in pairwise(batch):
            assert after == step + 1 or step + 1 in ends
        assert batch[-1] + 1 in ends
    again = answer_batches(lengths, size, epochs=2, seed=0)
    assert [batch.tolist() for batch in plan] == [item.tolist() for item in again]
    assert [batch.tolist() for batch in plan] != [
        batch.tolist() for batch in answer_batches(lengths, size, epochs=2, seed=1)
    ]


def test_only_mixed_returns_need_batches_of_answers() -> None:
    plain = [batch.tolist() for batch in batches(len(DATA), 6, 2, 3)]
    for options in ({"method": "td0"}, {"method": "mc"}, {"published": True, "method": "td_lambda"}):
        assert [batch.tolist() for batch in new_fit(**options).plan(DATA, 6, 2, 3)] == plain
    lengths = [len(sentences) for _, sentences, _ in ANSWERS]
    mixed = new_fit(method="td_lambda").plan(DATA, 6, 2, 3)
    assert [item.tolist() for item in mixed] == [batch.tolist() for batch in answer_batches(lengths, 6, 2, 3)]
    assert answer_batches([], 6, 2, 3) == []


# The target network


def test_the_target_network_lags_behind() -> None:
    fit = new_fit(decay=0.75)
    before = {name: p.detach().clone() for name, p in fit.parameters.items()}
    fit.step(DATA[:8])
    for name, parameter in fit.parameters.items():
        assert not torch.equal(parameter, before[name])
        assert torch.allclose(fit.target[name], 0.75 * before[name] + 0.25 * parameter, atol=1e-7)


def test_without_decay_the_target_is_the_network() -> None:
    fit = new_fit(decay=0.0)
    fit.step(DATA[:8])
    assert all(torch.allclose(fit.target[name], parameter) for name, parameter in fit.parameters.items())


def test_targets_come_from_the_target_network_and_leave_the_other_as_it_was() -> None:
    fit = new_fit(decay=0.99)
    for _ in range(20):
        fit.step(DATA[:8])
    now = {name: p.detach().clone() for name, p in fit.parameters.items()}
    lagging = fit.targets(DATA[:8])
    assert all(torch.equal(now[name], parameter) for name, parameter in fit.parameters.items())
    fit.target = {name: p.detach().clone() for name, p in fit.parameters.items()}
    assert not torch.equal(lagging, fit.targets(DATA[:8]))
    # What ends an answer needs no bootstrap.
    ends = torch.tensor([step.terminal for step in DATA[:8]])
    assert torch.equal(lagging[ends], fit.targets(DATA[:8])[ends])


def test_every_epoch_sees_every_transition_once_in_an_order_of_its_own() -> None:
    plan = batches(10, 4, epochs=2, seed=0)
    assert [len(batch) for batch in plan] == [4, 4, 2, 4, 4, 2]
    first, second = np.concatenate(plan[:3]), np.concatenate(plan[3:])
    assert sorted(first) == sorted(second) == list(range(10))
    assert first.tolist() != second.tolist()
    assert [b.tolist() for b in plan] == [b.tolist() for b in batches(10, 4, epochs=2, seed=0)]


def test_a_loss_that_is_no_number_stops_the_fit_and_names_the_setting() -> None:
    fit = new_fit(lr=0.5)
    bad = [Transition(0, "s1", None, (float("nan"),))]
    with pytest.raises(FloatingPointError, match=r"step 0: the TD loss is nan; lower value\.lr \(0\.5\)"):
        run_fit(fit, bad, plan=[np.array([0])])


def test_steps_are_reported_as_they_are_done() -> None:
    seen: list[int] = []
    run_fit(new_fit(), DATA, plan=PLAN[:5], start=2, after_step=lambda done, loss: seen.append(done))
    assert seen == [3, 4, 5]
