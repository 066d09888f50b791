"""The third policy: what it is trained on is what its processor makes, so that it is asked as it was taught."""

from __future__ import annotations

import pytest
import torch

from tasks.core.demo.captions import PROMPTS
from tasks.core.demo.policy_model import IMAGE
from tasks.core.demo.scenes import draw_scene, sample_scenes
from tasks.core.demo.third_policy import (
    TOKENS,
    Taught,
    Tower,
    patches,
    third_model,
    third_processor,
    third_tokenizer,
)
from tasks.core.demo.train_policy import collate
from tasks.core.demo.train_vision import patch_labels, pixel_values, train_vision
from tasks.demo.third import ThirdSteps, pretrain_third

SCENES = list(sample_scenes("third", 3))


def test_patches_are_those_of_the_processor() -> None:
    processor = third_processor(third_tokenizer())
    wanted = processor.image_processor([draw_scene(scene) for scene in SCENES], return_tensors="pt")
    rows, grid = patches(pixel_values(SCENES))
    assert grid.tolist() == wanted["image_grid_thw"].tolist()
    assert torch.allclose(rows, wanted["pixel_values"], atol=1e-5)


def test_the_prompt_it_is_trained_on_is_that_of_its_template() -> None:
    tokenizer = third_tokenizer()
    processor, taught = third_processor(tokenizer), Taught(third_model(tokenizer), tokenizer)
    turn = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": PROMPTS[0]}]}]
    text = processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
    wanted = processor(text=[text], images=[draw_scene(SCENES[0])], return_tensors="pt")["input_ids"][0].tolist()
    ids = collate(tokenizer, [(PROMPTS[0], "A dog.")], TOKENS)["input_ids"]
    marked = taught._marked(ids, len(taught.opening))[0].tolist()
    assert marked[: len(wanted)] == wanted and wanted.count(tokenizer.convert_tokens_to_ids(IMAGE)) == TOKENS


def test_the_tower_has_a_state_for_each_cell_and_learns_by_the_towers_recipe() -> None:
    model = third_model(third_tokenizer())
    tower = Tower(model.model.visual)
    states = tower(pixel_values(SCENES)).last_hidden_state
    assert states.shape[:2] == patch_labels(SCENES, 32).shape
    before = model.model.visual.patch_embed.proj.weight.clone()
    *_, (step, _, trained) = train_vision(steps=2, batch=2, seed=0, build=lambda: tower)
    assert step == 2 and trained is tower and not torch.equal(before, model.model.visual.patch_embed.proj.weight)


def test_its_loss_is_of_the_answer_and_sees_the_image() -> None:
    torch.manual_seed(0)
    tokenizer = third_tokenizer()
    taught = Taught(third_model(tokenizer).eval(), tokenizer)
    inputs = collate(tokenizer, [(PROMPTS[0], "A dog."), (PROMPTS[1], "A cat and a dog.")], TOKENS)
    losses = [taught(pixel_values=pixel_values(SCENES[i : i + 2]), **inputs).loss.item() for i in (0, 1)]
    assert losses[0] != losses[1] and all(0 < loss < 20 for loss in losses)
    unanswered = {**inputs, "labels": torch.full_like(inputs["labels"], -100)}
    assert torch.isnan(taught(pixel_values=pixel_values(SCENES[:2]), **unanswered).loss)


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(1, 3, 40, 96\): want"):
        patches(torch.zeros(1, 3, 40, 96))


def test_a_few_steps_write_a_checkpoint_that_loads_as_any_other(tmp_path) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    figures = pretrain_third(tmp_path / "third", steps=ThirdSteps(1, 1, 2), seed=0)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "third")
    assert model.config.model_type == "qwen2_vl" and figures["n"] == 2
    assert AutoProcessor.from_pretrained(tmp_path / "third").image_token == IMAGE
    assert [path.name for path in tmp_path.iterdir()] == ["third"]
