"""How many tokens and pixels an image costs: as the processors themselves say, and as published."""

from __future__ import annotations

import pytest
from PIL import Image

from tasks.core.memory.images import FIXED, UnknownImageCost, image_cost
from tasks.models.architectures import facts_of, shipped
from tests.support.tiny_models import tiny

SIZES = [(64, 48), (40, 90), (28, 28), (200, 60)]
RULED = [
    "llava",
    "llava_next",
    "llava_onevision",
    "qwen2_vl",
    "qwen2_5_vl",
    "idefics3",
    "smolvlm",
    "mllama",
    "qwen3_vl",
]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", RULED)
def test_the_rule_gives_what_the_processor_makes(name: str, size: tuple[int, int]) -> None:
    policy = tiny(name)
    inputs = policy.inputs([Image.new("RGB", size)], ["A cat."])
    config = policy.model.config
    image_id = getattr(config, "image_token_id", None) or config.image_token_index
    tokens = int((inputs["input_ids"] == image_id).sum())
    cost = image_cost(config.to_dict(), policy.processor.image_processor.to_dict(), size)
    # Beside the placeholders: what stands before a tile, behind a line of tiles, and around the image.
    markers = 3 * cost.crops + 6 if name in ("idefics3", "smolvlm") else 2
    assert tokens <= cost.tokens <= tokens + markers
    assert cost.pixels == inputs["pixel_values"].numel()


def test_tokens_of_llava_next_are_those_that_are_known_of_cocos_sizes() -> None:
    facts = facts_of("llava-hf/llava-v1.6-mistral-7b-hf")
    known = {(640, 480): 2340, (640, 427): 2144, (640, 640): 2928}
    assert {size: facts.cost(size, None).tokens for size in known} == known


@pytest.mark.parametrize("checkpoint", sorted(shipped()))
def test_a_bound_on_pixels_saves_tokens_or_is_refused_by_name(checkpoint: str) -> None:
    facts = facts_of(checkpoint)
    before = facts.cost((1600, 1200), None)
    if facts.config["model_type"] in (*FIXED, "mllama"):
        with pytest.raises(UnknownImageCost, match=r"policy\.max_pixels"):
            facts.cost((1600, 1200), 512**2)
    else:
        assert facts.cost((1600, 1200), 512**2).tokens < before.tokens
        with pytest.raises(UnknownImageCost, match="the smallest image"):
            facts.cost((1600, 1200), 100)


def test_a_kind_without_a_rule_is_named() -> None:
    with pytest.raises(UnknownImageCost, match="blip"):
        image_cost({"model_type": "blip"}, {}, (64, 64))
