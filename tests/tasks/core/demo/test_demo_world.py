"""The demo world draws what its captions name, errs the way it should, and its models load like any others."""

from __future__ import annotations

import math
import random
import re

import pytest
import torch
from PIL import Image

from tasks.core.benchmarks.mentions import find_mentions
from tasks.core.demo.audit import separation, snowball
from tasks.core.demo.captions import (
    OPENINGS,
    PROMPTS,
    RULES,
    Sentence,
    caption,
    caption_text,
    companion,
    noun_phrase,
    reference_captions,
)
from tasks.core.demo.glyphs import GLYPHS, render_glyph
from tasks.core.demo.measure import hallucination, named_categories, split_sentences
from tasks.core.demo.policy_model import build_policy, build_processor, build_tokenizer
from tasks.core.demo.scenes import CELL, GROUPS, SIDE, draw_scene, sample_scenes
from tasks.core.demo.scorer_model import build_scorer, model_cfg
from tasks.core.demo.train_oracle import pair_loss, sentences_about, truth
from tasks.core.demo.train_policy import IGNORED, collate, prompt_ids
from tasks.core.demo.train_scorer import GROUPS_A_BATCH, alike_scenes, contrastive_loss
from tasks.core.demo.train_vision import CATEGORIES, NOTHING, PATCH, patch_labels, pixel_values, vision_config
from tasks.core.models.torchvision_operators import ensure_torchvision_operators

ensure_torchvision_operators()  # before transformers and open_clip

from transformers import CLIPVisionModel  # noqa: E402

SCENES = list(sample_scenes("tests", 40))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


# Scenes


@pytest.mark.parametrize("category", GLYPHS)
def test_every_glyph_draws_something_of_the_given_size(category: str) -> None:
    glyph = render_glyph(category, 30)
    assert max(glyph.size) == 30
    opaque = sum(alpha > 128 for alpha in glyph.getchannel("A").tobytes())
    assert opaque > 60


def test_every_category_is_in_exactly_one_group() -> None:
    assert sorted(name for members in GROUPS.values() for name in members) == sorted(GLYPHS)


def test_a_seed_gives_the_same_scenes_and_pixels_again() -> None:
    again = list(sample_scenes("tests", 40))
    assert again == SCENES
    assert draw_scene(again[0]).tobytes() == draw_scene(SCENES[0]).tobytes()
    assert list(sample_scenes("other", 40)) != SCENES


def test_objects_stay_in_their_cells_and_differ() -> None:
    for scene in SCENES:
        assert 2 <= len(scene.categories) == len(set(scene.categories)) <= 4
        assert len({placed.cell for placed in scene.objects}) == len(scene.objects)
        for placed in scene.objects:
            row, column = divmod(placed.cell, 3)
            assert column * CELL <= placed.left <= placed.left + placed.width <= (column + 1) * CELL
            assert row * CELL <= placed.top <= placed.top + placed.height <= (row + 1) * CELL


def test_taken_scenes_are_not_drawn_again() -> None:
    taken: set[tuple[tuple[str, int], ...]] = set()
    scenes = [*sample_scenes("a", 300, taken), *sample_scenes("a", 300, taken)]
    assert len({scene.signature for scene in scenes}) == len(taken) == 600


# Captions


@pytest.mark.parametrize("rule", RULES)
def test_captions_open_and_name_every_true_object_once_and_invent_only_companions(rule: str) -> None:
    rng = random.Random(0)
    for scene in SCENES:
        first, *others = caption(rng, scene, rule)
        assert first.text in OPENINGS.values() and not first.names
        names = [name for item in others for name in item.names]
        assert len(names) == len(set(names))
        assert set(scene.categories) <= set(names)
        for name in set(names) - set(scene.categories):
            assert any(companion(other) == name for other in names)


def test_openings_name_nothing_that_chair_counts() -> None:
    for text in OPENINGS.values():
        assert find_mentions(text) == [] and named_categories(text) == []


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="'free': want one of committed, independent"):
        caption(random.Random(0), SCENES[0], "free")


def inventions(rule: str, seed: str) -> tuple[dict[str, float], dict[bool, float]]:
    """Of many captions: inventions a caption by the manner of its opening, and the share of inventing sentences by whether an
    earlier one invented."""
    rng = random.Random(seed)
    by_opening: dict[str, list[int]] = {manner: [] for manner in OPENINGS}
    counts = {False: [0, 0], True: [0, 0]}
    for scene in sample_scenes(seed, 3000):
        first, *others = caption(rng, scene, rule)
        invents = [item.names[0] not in scene.categories for item in others]
        by_opening[next(manner for manner, text in OPENINGS.items() if text == first.text)].append(sum(invents))
        for index, value in enumerate(invents):
            before = any(invents[:index])
            counts[before][0] += 1
            counts[before][1] += value
    return {manner: sum(n) / len(n) for manner, n in by_opening.items()}, {k: b / a for k, (a, b) in counts.items()}


def test_a_committed_opening_and_an_invention_breed_further_inventions() -> None:
    by_opening, after = inventions("committed", "committed captions")
    assert by_opening["flowery"] > 2 * by_opening["plain"]
    assert 0.05 < after[False] < 0.3 < after[True]


def test_of_an_independent_caption_the_opening_tells_nothing() -> None:
    by_opening, _ = inventions("independent", "independent captions")
    assert by_opening["flowery"] == pytest.approx(by_opening["plain"], rel=0.08)


def test_reference_captions_are_true() -> None:
    for scene in SCENES:
        for text in reference_captions(random.Random(2), scene):
            assert set(named_categories(text)) == set(scene.categories)


# Measures


def test_a_hot_dog_is_no_dog_and_a_plural_counts() -> None:
    assert named_categories("There is a hot dog next to an apple. Two dogs, a pair of skis.") == [
        "hot dog", "apple", "dog", "skis",
    ]  # fmt: skip


def test_hallucination_by_hand() -> None:
    texts = ["There is a dog. There is a cat. I can see a dog.", "There is a cup."]
    result = hallucination(texts, [["dog", "cow"], ["cup"]])
    assert result == (0.5, pytest.approx(1 / 3), pytest.approx(2 / 3), 2.0, 2)
    assert split_sentences(texts[0])[1] == "There is a cat."


def test_snowball_and_separation_by_hand() -> None:
    scene = SCENES[0]
    here = noun_phrase(scene.categories[0])
    absent = noun_phrase(next(name for name in GLYPHS if name not in scene.categories))
    draw = [f"There is {here}. There is {absent}. I can see {here}. I can see {absent}. It is day."]
    assert snowball([scene], [draw]) == (0.5, pytest.approx(1 / 3), 2, 3)

    def by_letters(_: list[Image.Image], sentences: list[str], owners: list[int]) -> list[float]:
        assert owners == [0] * len(sentences)
        return [float(here in text) for text in sentences]

    assert separation([scene], [draw, draw], by_letters) == (1.0, 1.0, 0.0, 1, 2, 2)
    nothing = separation([scene], [["It is day."]], lambda images, sentences, owners: [])
    assert math.isnan(nothing.within_image_auc) and nothing.images == 0


# Training pieces


def test_patch_labels_name_the_object_in_each_cell() -> None:
    labels = patch_labels(SCENES, PATCH)
    assert labels.shape == (len(SCENES), (SIDE // PATCH) ** 2)
    for scene, row in zip(SCENES, labels.tolist(), strict=True):
        assert {CATEGORIES[label] for label in row if label != NOTHING} == set(scene.categories)


def test_known_words_are_one_token_and_any_text_round_trips() -> None:
    tokenizer = build_tokenizer()
    reply = caption_text(caption(random.Random(3), SCENES[0]))
    for text in (*PROMPTS, reply, "Zwölf Boxkämpfer,  quer\nüber 日本!"):
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert len(tokenizer(reply).input_ids) == len(re.findall(r"\w+|[.,]", reply))


def test_loss_is_taken_on_the_answer_and_its_end_only() -> None:
    tokenizer = build_tokenizer()
    batch = collate(tokenizer, [(PROMPTS[0], "There is a dog."), (PROMPTS[4], "There is a wine glass. A.")], 9)
    learned = [[token for token in row if token != IGNORED] for row in batch["labels"].tolist()]
    assert [tokenizer.decode(row) for row in learned] == ["There is a dog.</s>", "There is a wine glass. A.</s>"]
    assert batch["input_ids"].shape == batch["labels"].shape == batch["attention_mask"].shape


def test_true_means_every_object_named_is_there() -> None:
    scene = SCENES[0]
    absent = next(name for name in GLYPHS if name not in scene.categories)
    here, there = scene.categories[:2]
    sentences = [Sentence("", (here,)), Sentence("", (here, there)), Sentence("", (here, absent))]
    assert truth([scene], sentences).tolist() == [[True, True, False]]
    for item in sentences_about(random.Random(4), scene):
        assert set(named_categories(item.text)) == set(item.names)


def test_contrastive_loss_weighs_pairs_and_others_alike() -> None:
    assert contrastive_loss(torch.zeros(3, 3)).item() == pytest.approx(0.6931, abs=1e-4)
    own = torch.eye(3, dtype=torch.bool)
    assert contrastive_loss(torch.where(own, 9.0, -9.0)).item() < 1e-3
    one_sided = contrastive_loss(torch.full((3, 3), 9.0)).item()  # all pairs are called a match
    assert one_sided == pytest.approx(4.5, abs=1e-2)


def test_a_batch_of_alike_scenes_holds_few_groups() -> None:
    scenes = alike_scenes(random.Random(0), 30)
    assert len(scenes) == 30
    assert len({scene.group for scene in scenes}) == GROUPS_A_BATCH


def test_pair_loss_weighs_true_and_false_alike() -> None:
    true = torch.eye(3, dtype=torch.bool).repeat_interleave(2, dim=1)
    true[:, 1::2] = False
    true[0, 2] = True
    assert pair_loss(torch.zeros(3, 6), true, 2).item() == pytest.approx(0.6931, abs=1e-3)
    assert pair_loss(torch.where(true, 9.0, -9.0), true, 2).item() < 1e-3


def test_towers_of_both_models_compute_what_the_pretrained_one_does() -> None:
    torch.manual_seed(0)
    tower = CLIPVisionModel(vision_config()).eval()
    scorer = build_scorer(tower, model_cfg(tower, build_tokenizer(append_eos=True))).eval()
    pixels = pixel_values(SCENES[:3])
    with torch.inference_mode():
        states = tower(pixels).last_hidden_state[:, 1:]
        expected = tower.post_layernorm(states).mean(dim=1) @ scorer.visual.proj
        assert torch.allclose(scorer.visual(pixels), expected, atol=1e-4)


def test_training_inputs_are_what_the_processor_makes() -> None:
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    processor = build_processor(tokenizer, PATCH)
    requests = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": PROMPTS[1]}]}]
    text = processor.apply_chat_template(requests, add_generation_prompt=True)
    inputs = processor(text=[text], images=[draw_scene(SCENES[0])], return_tensors="pt")
    model = build_policy(CLIPVisionModel(vision_config()), tokenizer)
    assert inputs["input_ids"][0].tolist() == prompt_ids(tokenizer, PROMPTS[1], model.config.image_seq_length)
    assert torch.allclose(inputs["pixel_values"], pixel_values(SCENES[:1]), atol=1e-5)
