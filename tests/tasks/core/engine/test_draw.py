"""One token a row: greedy, nucleus, frequencies, and no row that looks at its neighbours."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.engine import draw
from tasks.core.engine.draw import draw_tokens


def drawn(logits: torch.Tensor, temperature: float, top_p: float, uniform: torch.Tensor) -> torch.Tensor:
    rows = len(logits)
    return draw_tokens(logits, torch.full((rows,), temperature), torch.full((rows,), top_p), uniform)


@given(st.integers(0, 10_000))
def test_temperature_zero_is_argmax_whatever_the_draw(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits, uniform = torch.randn(4, 9, generator=generator), torch.rand(4, generator=generator)
    assert torch.equal(drawn(logits, 0.0, 0.9, uniform), logits.argmax(dim=1))


def test_frequencies_are_those_of_softmax_at_the_temperature() -> None:
    logits, n = torch.tensor([0.3, 1.2, -0.5, 0.9]), 20_000
    tokens = drawn(logits.expand(n, 4), 0.7, 1.0, (torch.arange(n) + 0.5) / n)
    share = torch.bincount(tokens, minlength=4) / n
    assert torch.allclose(share, torch.softmax(logits / 0.7, dim=0), atol=1e-3)


def test_the_nucleus_is_the_smallest_set_that_holds_the_mass() -> None:
    probabilities = torch.tensor([0.1, 0.5, 0.15, 0.25])
    grid = (torch.arange(1000) + 0.5) / 1000
    logits = probabilities.log().expand(1000, 4)
    for top_p, nucleus in ((0.4, {1}), (0.5001, {1, 3}), (0.74, {1, 3}), (0.76, {1, 2, 3}), (1.0, {0, 1, 2, 3})):
        tokens = drawn(logits, 1.0, top_p, grid)
        assert set(tokens.tolist()) == nucleus
        inside = probabilities[sorted(nucleus)] / probabilities[sorted(nucleus)].sum()
        share = torch.bincount(tokens, minlength=4)[sorted(nucleus)] / 1000
        assert torch.allclose(share, inside, atol=2e-3)


def test_a_tiny_nucleus_is_greedy() -> None:
    logits = torch.randn(50, 12, generator=torch.Generator().manual_seed(0))
    assert torch.equal(drawn(logits, 1.5, 1e-6, torch.linspace(0, 0.999, 50)), logits.argmax(dim=1))


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, uniform = torch.randn(32, 50, generator=generator), torch.rand(32, generator=generator)
    temperature, top_p = torch.arange(32) % 4 * 0.4, torch.linspace(0.3, 1.0, 32)
    together = draw_tokens(logits, temperature, top_p, uniform)
    alone = [draw_tokens(logits[[i]], temperature[[i]], top_p[[i]], uniform[[i]]).item() for i in range(32)]
    assert together.tolist() == alone
    back = torch.arange(31, -1, -1)
    assert torch.equal(draw_tokens(logits[back], temperature[back], top_p[back], uniform[back]), together[back])


def test_the_largest_draw_below_one_stays_inside_the_nucleus() -> None:
    logits = torch.tensor([[5.0, 5.0, -50.0]])
    almost = torch.tensor([1 - 2**-53], dtype=torch.float64)
    assert drawn(logits, 1.0, 0.9, almost).item() in (0, 1)


def test_ties_go_to_the_lower_token() -> None:
    logits = torch.zeros(3, 6)
    assert drawn(logits, 1.0, 0.1, torch.tensor([0.0, 0.5, 0.99])).tolist() == [0, 0, 0]


def test_draws_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"want \[2\] each"):
        draw_tokens(torch.zeros(2, 3), torch.zeros(2), torch.ones(2), torch.zeros(2, 1))


# A vocabulary that is too large to sort


def fully_sorted(monkeypatch: pytest.MonkeyPatch, *arguments: torch.Tensor) -> torch.Tensor:
    with monkeypatch.context() as patch:
        patch.setattr(draw, "TOP_COUNTS", (arguments[0].shape[1],))
        return draw_tokens(*arguments)


@pytest.fixture
def sorts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many columns were sorted, each time that rows were drawn."""
    widths: list[int] = []
    likeliest = draw._likeliest

    def seen(*arguments: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        top = likeliest(*arguments)
        widths.append(top[0].shape[1])
        return top

    monkeypatch.setattr(draw, "_likeliest", seen)
    return widths


@pytest.mark.parametrize("count", [1, 3, 16])
@pytest.mark.parametrize("scale", [0.0, 1.0, 4.0, 400.0])
@pytest.mark.parametrize("ties", [False, True])
def test_the_few_likeliest_tokens_give_what_all_of_them_give(
    monkeypatch, sorts, count: int, scale: float, ties: bool
) -> None:
    monkeypatch.setattr(draw, "TOP_COUNTS", (count,))
    for seed in range(30):
        generator = torch.Generator().manual_seed(seed)
        logits = scale * torch.randn(6, 60, generator=generator)
        if ties:
            logits = (2 * logits / max(scale, 1.0)).round()
        arguments = (
            logits,
            torch.tensor([0.0, 0.3, 0.7, 1.0, 1.5, 0.7]),
            torch.tensor([0.9, 0.5, 0.05, 0.9, 0.7, 1.0 if seed % 3 == 0 else 0.95]),
            torch.rand(6, generator=generator, dtype=torch.float64),
        )
        assert torch.equal(draw_tokens(*arguments), fully_sorted(monkeypatch, *arguments))
    assert 60 in sorts, "never sorted all"


@pytest.mark.parametrize(
    ("count", "scale", "top_p", "width"), [(16, 9.0, 0.9, 16), (16, 0.1, 0.9, 60), (16, 9.0, 1.0, 60)]
)
def test_all_are_sorted_only_where_a_nucleus_may_be_larger(monkeypatch, sorts, count, scale, top_p, width) -> None:
    monkeypatch.setattr(draw, "TOP_COUNTS", (count,))
    drawn(scale * torch.randn(8, 60, generator=torch.Generator().manual_seed(0)), 1.0, top_p, torch.full((8,), 0.5))
    assert sorts == [width]


def test_a_tie_at_the_last_of_the_few_is_not_decided_by_chance(monkeypatch, sorts) -> None:
    """Tokens 20 to 59 are equally likely, the nucleus takes the first of them: so all must be sorted."""
    monkeypatch.setattr(draw, "TOP_COUNTS", (16,))
    logits = torch.zeros(1, 60)
    logits[0, :20] = -9.0
    logits[0, 10] = 4.0
    tokens = drawn(logits.expand(400, 60), 1.0, 0.62, torch.linspace(0, 0.999, 400))
    assert set(tokens.tolist()) == {10, 20, 21, 22, 23, 24}
    assert sorts == [60]
