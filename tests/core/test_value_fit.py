"""The fit goes on where it was, tensor by tensor; its target network lags; it never goes on from nonsense."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tasks.core.td import Transition
from tasks.core.value_fit import FitState, ValueFit, batches, run_fit

DATA = [Transition(i % 3, f"s{i}", None if i % 4 == 3 else f"s{i + 1}", float(np.sin(i)), 4 - i % 4) for i in range(40)]
PLAN = batches(len(DATA), 6, epochs=3, seed=1)


def small_net() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))


def new_fit(decay: float = 0.9, lr: float = 0.01) -> ValueFit:
    net = small_net()
    return ValueFit(
        value=lambda pairs: net(torch.tensor([[float(i), float(text[1:]) / 10] for i, text in pairs]))[:, 0],
        parameters=dict(net.named_parameters()),
        gamma=0.9,
        mode="mean_to_go",
        lr=lr,
        target_decay=decay,
    )


def equal(one: FitState, other: FitState) -> bool:
    return one.tensors.keys() == other.tensors.keys() and all(
        torch.equal(one.tensors[name], other.tensors[name]) for name in one.tensors
    )


@pytest.mark.parametrize("stop", [1, 7, len(PLAN) - 1])
def test_a_resumed_fit_ends_with_bit_equal_tensors(stop: int) -> None:
    whole = new_fit()
    losses = run_fit(whole, DATA, plan=PLAN)

    begun, saved = new_fit(), []
    first = run_fit(begun, DATA, plan=PLAN[:stop])
    saved.append(FitState(stop, {name: t.clone() for name, t in begun.state(stop).tensors.items()}))
    resumed = new_fit()
    resumed.restore(saved[0])
    rest = run_fit(resumed, DATA, plan=PLAN, start=stop)

    assert equal(resumed.state(len(PLAN)), whole.state(len(PLAN)))
    assert first + rest == losses


def test_the_loss_falls() -> None:
    losses = run_fit(new_fit(), DATA, plan=batches(len(DATA), 10, epochs=40, seed=0))
    assert np.mean(losses[-8:]) < 0.8 * np.mean(losses[:8])


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
    ends = torch.tensor([one.terminal for one in DATA[:8]])
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
    bad = [Transition(0, "s1", None, float("nan"))]
    with pytest.raises(FloatingPointError, match=r"step 0: the TD loss is nan; lower value\.lr \(0\.5\)"):
        run_fit(fit, bad, plan=[np.array([0])])


def test_steps_are_reported_as_they_are_done() -> None:
    seen: list[int] = []
    run_fit(new_fit(), DATA, plan=PLAN[:5], start=2, after_step=lambda done, loss: seen.append(done))
    assert seen == [3, 4, 5]
