"""The value-training benchmark compares like with like: the same pairs of sentences, and padding is work but no use."""

from __future__ import annotations

import pytest
import torch

from benchmarks.search_speed import machine
from benchmarks.value_shapes import BATCH, SHAPES, Data, Ran, data, of_states, released, trained
from benchmarks.value_speed import page, summary

WIDTH = 320  # 2,560 would take minutes


@pytest.fixture(scope="module")
def given() -> Data:
    torch.set_num_threads(1)
    return data()


@pytest.fixture(scope="module")
def ran(given: Data) -> dict[str, Ran]:
    work = {
        "released": released(given, WIDTH),
        "trainer": trained(given, "td0"),
        "mc": trained(given, "mc"),
        "states": of_states(given),
    }
    return {name: item() for name, item in work.items()}


def test_the_released_shape_computes_its_whole_width_for_both_sentences_of_a_pair(ran: dict[str, Ran]) -> None:
    assert ran["released"].transitions == BATCH
    assert ran["released"].work["positions"] == 2 * BATCH * WIDTH
    assert ran["released"].work["vision_encodes"] == 2 * BATCH


def test_a_pair_has_as_many_useful_tokens_in_both_shapes(given: Data, ran: dict[str, Ran]) -> None:
    half = given._replace(steps=given.steps[:BATCH])
    assert trained(half, "td0")().tokens == ran["released"].tokens
    assert ran["released"].tokens < ran["released"].work["positions"]


def test_monte_carlo_computes_half_and_states_read_an_answer_once(given: Data, ran: dict[str, Ran]) -> None:
    assert ran["mc"].work["forwards"] * 2 == ran["trainer"].work["forwards"]
    assert ran["mc"].work["vision_encodes"] * 2 == ran["trainer"].work["vision_encodes"]
    assert ran["states"].work["vision_encodes"] == len(given.pictures)
    assert ran["states"].transitions == len(given.steps)
    assert ran["states"].work["positions"] / len(given.steps) < ran["mc"].work["positions"] / ran["mc"].transitions


def test_the_page_shows_every_shape(ran: dict[str, Ran]) -> None:
    shapes = {name: summary([item, item]) for name, item in ran.items()}
    ratios = {f"transitions_per_second_{name}": 2.0 for name in SHAPES[1:]}
    text = page({"machine": machine(), "shapes": shapes, "vs_released": ratios})
    assert all(f"| {name} |" in text for name in SHAPES)
    assert text.count("| 2.0 |") == 3
