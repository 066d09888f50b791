"""Which images: by seed and name, in proportion, each round its own."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.data.sampling import draw_prompt, held_out, round_slice, stratified_order, stratum

STRATA = {f"img-{i:03d}": ("wide", "wide", "wide", "tall", "square")[i % 5] for i in range(200)}


def test_a_larger_draw_contains_the_smaller_one() -> None:
    order = stratified_order(STRATA, seed=3)
    assert round_slice(order, 80, 0)[:20] == round_slice(order, 20, 0)


@given(st.permutations(sorted(STRATA)[:40]))
def test_the_order_of_a_listing_does_not_matter(names: list[str]) -> None:
    listed = {name: STRATA[name] for name in names}
    assert stratified_order(listed, seed=1) == stratified_order(dict(sorted(listed.items())), seed=1)


@given(st.integers(0, 10_000), st.integers(10, 200))
def test_every_prefix_holds_each_stratum_in_proportion(seed: int, size: int) -> None:
    result = Counter(STRATA[name] for name in stratified_order(STRATA, seed)[:size])
    for name, share in (("wide", 0.6), ("tall", 0.2), ("square", 0.2)):
        # A stratum may be one ahead or behind, and so may each of the two others.
        assert abs(result[name] - share * size) <= (1 - share) + 2 * share


def test_seeds_give_different_orders_of_the_same_images() -> None:
    item, other = stratified_order(STRATA, 0), stratified_order(STRATA, 1)
    assert sorted(item) == sorted(other) == sorted(STRATA)
    assert item != other


def test_rounds_share_no_image_until_all_were_used() -> None:
    order = stratified_order(STRATA, 0)
    rounds = [set(round_slice(order, 60, number)) for number in range(3)]
    assert len(set.union(*rounds)) == 180
    assert set(round_slice(order, 60, 3)) == rounds[0]


def test_too_few_images_for_a_round_say_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"3 images, 5 needed: lower sample\.images"):
        round_slice(["a", "b", "c"], 5, 0)


def test_a_prompt_belongs_to_its_image_and_all_are_drawn_alike() -> None:
    prompts = ["a", "b", "c", "d"]
    drawn = [draw_prompt(prompts, 0, f"img-{i}") for i in range(2000)]
    assert drawn == [draw_prompt(prompts, 0, f"img-{i}") for i in range(2000)]
    assert all(abs(count - 500) < 80 for count in Counter(drawn).values())


@given(st.integers(2, 50), st.floats(0.01, 0.49))
def test_held_out_is_at_least_one_and_never_all_and_ignores_order(count: int, share: float) -> None:
    ids = [f"i{k}" for k in range(count)]
    held = held_out(ids, share, 0)
    assert 1 <= len(held) < count
    assert held == held_out(ids[::-1], share, 0)
    assert abs(len(held) - share * count) <= 1


@pytest.mark.parametrize(
    ("size", "name"),
    [
        ((96, 96), "square-small"),
        ((640, 480), "wide-medium"),
        ((480, 640), "tall-medium"),
        ((4000, 3800), "square-large"),
    ],
)
def test_a_stratum_is_orientation_and_size(size: tuple[int, int], name: str) -> None:
    assert stratum(*size) == name
