"""A head on the policy's hidden states: what it learns, and that what is saved is what is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tasks.core.models.value import StateValue, ValueSpec, load_state_value, read_spec
from tasks.core.value.fit import ValueFit
from tasks.core.value.td import mc_returns, transitions

STATES = torch.randn(200, 12, generator=torch.Generator().manual_seed(3)) * torch.logspace(-2, 3, 12) + 5
SPEC = ValueSpec("demo", train="frozen", layer=-1, state="prefix", reads="policy_states")


def state_step(head: StateValue, target: torch.Tensor) -> float:
    optimizer = torch.optim.AdamW(head.parameters().values(), lr=1e-2)
    for _ in range(100):
        loss = (head(STATES) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(loss.detach())


def test_a_saved_head_gives_the_same_values_and_learns_no_more(tmp_path: Path) -> None:
    head = StateValue.of(STATES, SPEC)
    assert torch.equal(head(STATES), torch.zeros(200)), "a fresh head knows nothing"
    state_step(head, STATES[:, 3])
    head.save(tmp_path)
    again = load_state_value(tmp_path, "cpu")
    values = again(STATES)
    assert values.shape == (200,)
    assert values.dtype == torch.float32
    assert torch.equal(values, head(STATES))
    assert torch.equal(again(STATES[:1].half())[0], again(STATES[:1].half().float())[0])
    assert again.spec == read_spec(tmp_path) == SPEC
    assert not values.requires_grad


def test_a_head_learns_from_every_dimension_whatever_its_scale() -> None:
    for dimension in (0, 11):  # a standard deviation of 0.01 and of 1000
        wanted = (STATES[:, dimension] - 5) / STATES[:, dimension].std()
        assert state_step(StateValue.of(STATES, SPEC), wanted) < 0.1


def test_a_dimension_that_never_varied_does_not_blow_up_a_value() -> None:
    still = STATES.clone()
    still[:, 4] = 7.0
    head = StateValue.of(still, SPEC)
    state_step(head, still[:, 3])
    moved = still.clone()
    moved[:, 4] += 0.01
    assert torch.allclose(head(moved), head(still), atol=0.05)


def test_a_new_head_always_starts_the_same() -> None:
    torch.manual_seed(1)
    tensors = StateValue.of(STATES, SPEC).tensors()
    torch.manual_seed(2)
    other = StateValue.of(STATES, SPEC).tensors()
    assert tensors.keys() == {"mean", "std", "head.0.weight", "head.0.bias", "head.2.weight", "head.2.bias"}
    assert all(torch.equal(tensors[name], other[name]) for name in tensors)


@pytest.mark.parametrize("odd", ["mean", "head.2.bias", "left over"])
def test_a_head_with_missing_or_left_over_tensors_is_refused(odd: str, tmp_path: Path) -> None:
    StateValue.of(STATES, SPEC).save(tmp_path)
    tensors = load_file(tmp_path / "value.safetensors")
    if tensors.pop(odd, None) is None:
        tensors["head.scale"] = torch.ones(1)
    save_file(tensors, tmp_path / "value.safetensors")
    with pytest.raises(ValueError, match=r"no mean and std|tensors for 4 parameters, first differences \['head\."):
        load_state_value(tmp_path, "cpu")


@pytest.mark.parametrize("mode", ["mean_to_go", "zero_terminal"])
def test_td_on_states_learns_the_values_of_a_chain(mode: str) -> None:
    rewards = [0.2, 1.0, -0.5, 0.4]
    names = ["a/0", "a/1", "a/2", "a/3"]
    at = {name: row for row, name in enumerate(names)}
    head = StateValue.of(STATES[:4], SPEC)
    fit = ValueFit(
        value=lambda pairs: head(STATES[[at[name] for _, name in pairs]]),
        parameters=head.parameters(),
        gamma=0.8,
        mode=mode,
        lr=3e-3,
        target_decay=0.5,
    )
    data = transitions([(0, names, rewards)], state="sentence", mode=mode)
    for _ in range(600):
        fit.step(data)
    assert head(STATES[:4]).tolist() == pytest.approx(mc_returns(rewards, gamma=0.8, mode=mode), abs=0.01)
