"""The scorer keeps its rows in order, reports what it cut, and refuses shapes that don't fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tasks.core.demo.captions import noun_phrase
from tasks.core.demo.glyphs import GLYPHS
from tasks.core.demo.scenes import sample_scenes
from tasks.core.models.scorer import ScorerError, cosines, load_scorer


def test_vectors_are_unit_long_and_in_order_whatever_the_batch(scorer, pictures) -> None:
    together, apart = scorer.embed_images(pictures), scorer.embed_images(pictures, batch_size=3)
    alone = np.concatenate([scorer.embed_images([picture]) for picture in pictures])
    # To the last bit: rewards must not depend on how many images or sentences a shard holds.
    assert np.array_equal(together, apart)
    assert np.array_equal(together, alone)
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    back = scorer.embed_images(pictures[::-1])
    assert np.array_equal(back[::-1], together)
    texts = [f"There is {noun_phrase(name)}." for name in GLYPHS]
    assert np.array_equal(scorer.embed_texts(texts), scorer.embed_texts(texts, batch_size=1))
    assert np.array_equal(scorer.embed_texts(texts), scorer.embed_texts(texts, batch_size=5))


def test_nothing_has_no_vectors(scorer) -> None:
    assert len(scorer.embed_images([])) == len(scorer.embed_texts([])) == 0


def test_each_image_scores_its_own_objects_above_absent_ones(scorer, pictures) -> None:
    right = []
    vectors = scorer.embed_images(pictures)
    for at, scene in enumerate(sample_scenes("core tests", 16)):
        absent = [name for name in GLYPHS if name not in scene.categories][:6]
        texts = [f"There is {noun_phrase(name)}." for name in [*scene.categories, *absent]]
        score = cosines(vectors, scorer.embed_texts(texts), [at] * len(texts))
        here = len(scene.categories)
        right.append(score[:here].min() > score[here:].max())
    assert np.mean(right) > 0.8


def test_a_text_longer_than_the_context_is_cut_and_says_so(scorer) -> None:
    short, long = "There is a dog.", "There is a dog and a cat. " * 60
    assert not scorer.is_cut(short)
    assert scorer.is_cut(long)
    vectors = scorer.embed_texts([long, long + "And a pizza."])
    assert np.allclose(vectors[0], vectors[1], atol=1e-6)


def test_the_limit_counts_start_and_end_tokens(scorer) -> None:
    lengths = [n for n in range(1, 2 * scorer.context_length) if not scorer.is_cut(" ".join(["dog"] * n))]
    longest = " ".join(["dog"] * max(lengths))
    vectors = scorer.embed_texts([longest, longest.rsplit(" ", 1)[0], longest + " dog dog"])
    assert not np.allclose(vectors[0], vectors[1], atol=1e-6)
    full = int((scorer.encoder.tokenizer([longest]) != 0).sum())
    assert full == scorer.context_length


def test_cosines_pair_every_text_with_its_image() -> None:
    images = np.eye(3, dtype=np.float32)
    texts = np.array([[0.6, 0.8, 0], [0, 0, 1], [1, 0, 0]], dtype=np.float32)
    assert cosines(images, texts, [1, 2, 0]) == pytest.approx([0.8, 1, 1])
    assert cosines(images, texts, [2, 0, 1]) == pytest.approx([0, 0, 0])
    assert cosines(images, np.zeros((0, 1)), []).shape == (0,)


@pytest.mark.parametrize(
    ("images", "texts", "index"), [((2, 3), (2, 3), [0]), ((2, 3), (1, 3), [0, 1]), ((2, 4), (2, 3), [0, 1])]
)
def test_cosines_of_shapes_that_do_not_fit_are_refused(images: tuple, texts: tuple, index: list[int]) -> None:
    with pytest.raises(ValueError, match=r"want \[N,D\], \[T,D\], T"):
        cosines(np.zeros(images), np.zeros(texts), index)


def test_a_folder_that_holds_no_scorer_says_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(ScorerError, match=r"Needed: a folder with open_clip_config\.json"):
        load_scorer(tmp_path, digest="x")


def test_an_unknown_name_says_where_the_known_ones_are() -> None:
    with pytest.raises(ScorerError, match=r"open_clip\.list_pretrained"):
        load_scorer("ViT-nothing/openai", digest="x")
