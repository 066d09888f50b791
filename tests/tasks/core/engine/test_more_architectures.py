"""Every other architecture is saved, loaded and decoded as `generate` decodes it; those that can't be a policy are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from tasks.core.engine.fallback import open_decoder
from tasks.core.engine.rows import Draw, Row
from tasks.core.models.policy import PolicyError, load_policy
from tasks.core.search.requests import ANSWER
from tests.support.plain import answer
from tests.support.tiny_models import MORE_ARCHITECTURES, REFUSED, save_tiny, tiny

SIZES = [(56, 40), (28, 60), (80, 80), (100, 30)]  # tiled differently
PROMPTS = ["Describe the image .", "What is there ?", "There is a dog on the left .", "A dog and a cat ."]


def noise(seed: int, width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


IMAGES = [noise(seed, *size) for seed, size in enumerate(SIZES)]
LIMIT = 15


@pytest.mark.parametrize("name", MORE_ARCHITECTURES)
def test_a_saved_checkpoint_decodes_greedily_as_generate_does(name, tmp_path) -> None:
    torch.set_num_threads(1)
    policy = load_policy(save_tiny(name, tmp_path), digest=name)
    inputs = policy.inputs(IMAGES, PROMPTS)
    assert (inputs["attention_mask"][:, 0] == 0).any(), "nothing is padded on the left"
    assert policy.end_ids == tiny(name).end_ids
    with torch.inference_mode():
        out = policy.model.generate(**inputs, do_sample=False, max_new_tokens=LIMIT)
    expected = []
    for row in out[:, inputs["input_ids"].shape[1] :].tolist():
        end = next((at for at, token in enumerate(row) if token in policy.end_ids), len(row))
        expected.append(tuple(row[:end]))
    assert len(set(expected)) > 1, "all answers are the same"
    others = policy.inputs([noise(9 + seed, *size) for seed, size in enumerate(SIZES)], PROMPTS)
    seen, unseen = (policy.model(**given).logits[:, -1] for given in (inputs, others))
    assert ((seen - unseen).abs().amax(dim=1) > 0.05).all(), "the image does not matter"
    decoder = open_decoder(policy)
    rows = [Row(prompt.prefix, Draw(0.0, 1.0, ()), ANSWER, LIMIT) for prompt in decoder.start(IMAGES, PROMPTS)]
    assert [completion.tokens for completion in answer(decoder, rows)] == expected


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_a_policy_is_refused_when_it_is_loaded(name, tmp_path) -> None:
    with pytest.raises(PolicyError, match=r"is not supported: .*; use a decoder that chats"):
        load_policy(save_tiny(name, tmp_path), digest=name)
