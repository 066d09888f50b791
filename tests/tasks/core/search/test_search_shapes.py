"""The shapes that the search benchmark compares do the same search: they differ in work, never in text."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks.search_cases import demo_case, llava_case
from benchmarks.search_shapes import PADDED, SHAPES, Case, Padding, Ran, measured
from benchmarks.search_speed import sampled, shapes


@pytest.fixture(scope="module")
def case() -> Case:
    torch.set_num_threads(1)
    return demo_case(2, candidates=3)


@pytest.fixture(scope="module")
def ran(case: Case) -> dict[str, Ran]:
    return {shape: measured(shape, case) for shape in SHAPES}


def test_every_shape_gives_the_same_captions(ran: dict[str, Ran]) -> None:
    captions = ran["engine"].captions
    assert len(set(captions)) == 2
    assert all(captions)
    assert [run.captions for run in ran.values()] == [captions] * len(SHAPES)
    assert len({run.work["drawn_tokens"] for run in ran.values()}) == 1


def test_the_released_shape_encodes_the_image_for_every_candidate_and_value(ran: dict[str, Ran]) -> None:
    assert ran["engine"].work["vision_encodes"] == 4  # two images, two networks
    assert ran["released"].work["vision_encodes"] == ran["generate"].work["vision_encodes"] > 20
    assert ran["released"].work["forwards"] > 2 * ran["generate"].work["forwards"]
    assert ran["generate_8"].work["forwards"] < ran["generate"].work["forwards"]
    assert ran["engine"].work["forwards"] < ran["engine_1"].work["forwards"]
    assert ran["engine"].work["prefill_tokens"] < ran["generate"].work["prefill_tokens"] / 5


def test_padding_costs_tokens_and_changes_no_value(case: Case) -> None:
    value, texts = case.value, ["There is a dog.", "A cat."]
    with torch.inference_mode():
        before = value(case.images, texts)
        narrow = value.policy
        value.policy = Padding(narrow.model, narrow.processor, narrow.digest)
        assert value.policy.inputs(case.images, texts)["input_ids"].shape == (2, PADDED)
        after = value(case.images, texts)
        value.policy = narrow
    assert torch.allclose(before, after, atol=1e-4)
    assert not torch.allclose(before[0], before[1], atol=1e-4)


def test_every_caption_of_random_weights_is_the_same_amount_of_work() -> None:
    llava = llava_case(2, candidates=2)
    llava = replace(llava, settings=replace(llava.settings, max_sentences=2))
    work = [measured("engine", replace(llava, images=[image])).work for image in llava.images]
    assert [run["drawn_tokens"] for run in work] == [2 * 2 * 20] * 2
    answers = measured("engine", replace(llava, images=llava.images[:1]), sampled)
    assert answers.work["drawn_tokens"] == 2 * llava.settings.max_new_tokens


def test_a_shape_that_gives_other_captions_is_no_result(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(shape: str, case: Case) -> Ran:
        return Ran([f"{shape}."] * len(case.images), {"drawn_tokens": 1}, 1.0, 1.0)

    monkeypatch.setattr("benchmarks.search_speed.measured", other)
    with pytest.raises(RuntimeError, match="other captions"):
        shapes("demo", case, 1)
