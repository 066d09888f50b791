"""A word is rewarded for what it scores above the right ones, punished for what it scores below the hallucinated ones."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.core.metrics import auc
from tasks.core.reward.object_words import (
    PHRASE,
    BaselineError,
    Baselines,
    measured_baselines,
    rewarded_tokens,
    split_baselines,
    units_of,
    word_rewards,
)

BASE = Baselines(mu_right=0.30, mu_hallucinated=0.20, deviation=0.05)


def test_baselines_are_the_means_of_both_kinds_and_their_common_deviation() -> None:
    scores, right = np.array([0.3, 0.1, 0.5, 0.2, 0.4]), np.array([True, False, True, False, True])
    result = measured_baselines(scores, right)
    assert result.mu_right == pytest.approx(0.4)
    assert result.mu_hallucinated == pytest.approx(0.15)
    assert result.deviation == pytest.approx(((0.02 + 0.005) / 3) ** 0.5)


@pytest.mark.parametrize(
    ("right_mean", "wrong_mean", "refused"), [(0.5, 0.2, False), (0.2, 0.5, True), (0.305, 0.3, True)]
)
def test_baselines_in_the_wrong_order_or_too_near_are_refused(
    right_mean: float, wrong_mean: float, refused: bool
) -> None:
    spread = np.tile([-0.1, 0.1], 50)
    scores, right = np.concatenate([right_mean + spread, wrong_mean + spread]), np.repeat([True, False], 100)
    if refused:
        with pytest.raises(BaselineError, match=r"can't tell them apart.*scorer\.checkpoint"):
            measured_baselines(scores, right)
    else:
        assert measured_baselines(scores, right).mu_right == pytest.approx(right_mean)


@pytest.mark.parametrize("wrong", [0, 1])
def test_one_word_of_a_kind_is_no_baseline(wrong: int) -> None:
    with pytest.raises(BaselineError, match=f"and {wrong} hallucinated words: a baseline needs at least two of each"):
        measured_baselines(np.linspace(0, 1, 6), np.arange(6) >= wrong)


def test_without_annotations_the_scores_are_parted_where_they_part_best() -> None:
    scores = np.array([0.1, 0.52, 0.12, 0.48, 0.5, 0.11])
    result, upper = split_baselines(scores)
    assert upper.tolist() == [False, True, False, True, True, False]
    assert (result.mu_right, result.mu_hallucinated) == (pytest.approx(0.5), pytest.approx(0.11))
    with pytest.raises(BaselineError, match="3 scores of object words without spread"):
        split_baselines(np.full(3, 0.2))


@pytest.mark.parametrize(
    ("score", "margin", "reward"),
    [
        (0.40, 0.00, 2.0),
        (0.31, 0.00, 0.2),
        (0.29, 0.00, 0.0),  # right words under their mean earn nothing
        (0.21, 0.00, 0.0),
        (0.15, 0.00, -1.0),
        (0.40, 0.05, 1.0),
        (0.34, 0.05, 0.0),
        (0.10, 0.05, -1.0),
        (0.16, 0.05, 0.0),
        (None, 0.00, 0.0),
    ],
)
def test_the_rule(score: float | None, margin: float, reward: float) -> None:
    assert word_rewards([("cat",)], [score], BASE, margin=margin) == [pytest.approx(reward)]


def test_saying_a_right_word_again_earns_nothing_and_a_wrong_one_costs_again() -> None:
    objects, scores = [("cat",), ("dog",), ("cat",), ("dog",), ("cup",)], [0.4, 0.1, 0.4, 0.1, 0.4]
    assert word_rewards(objects, scores, BASE, margin=0.0) == pytest.approx([2, -2, 0, -2, 2])


def test_a_sentence_earns_if_it_names_something_new() -> None:
    objects = [("cat", "dog"), ("dog", "cat"), ("dog", "cup"), ("cup",)]
    assert word_rewards(objects, [0.4] * 4, BASE, margin=0.0) == pytest.approx([2, 0, 2, 0])


def test_units_are_object_words_or_the_sentences_that_name_objects() -> None:
    answer = "There is a cat and two cats beside a dog. It is bright. A cow stands there."
    words = units_of(answer, "tokens")
    assert [(unit.text, unit.objects) for unit in words] == [
        ("cat", ("cat",)), ("cats", ("cat",)), ("dog", ("dog",)), ("cow", ("cow",)),
    ]  # fmt: skip
    assert words[-1].phrase == "a photo of a cow."
    first, last = units_of(answer, "sentences")
    assert (first.text, first.objects) == ("There is a cat and two cats beside a dog.", ("cat", "dog"))
    assert (last.text, last.objects, last.phrase) == ("A cow stands there.", ("cow",), "A cow stands there.")
    assert all(answer[unit.start : unit.end] == unit.text for unit in (*words, first, last))
    assert units_of("It is bright.", "sentences") == units_of("", "tokens") == []


def test_a_reward_stands_on_the_token_that_completes_its_word() -> None:
    pieces = ["A ", "hot", " dog", " and", " two", " co", "w", "s", "."]
    text = "".join(pieces)

    def text_of(tokens: list[int]) -> str:
        return "".join(pieces[i] for i in tokens).lstrip()

    ends = [text.index("dog") + 3, text.index("cows") + 4]
    assert rewarded_tokens(range(len(pieces)), zip(ends, [1.5, -2.0], strict=True), text_of) == {2: 1.5, 7: -2.0}
    both = rewarded_tokens([0, 1], [(1, 1.0), (1, 0.5)], lambda tokens: "a cat"[: 2 * len(tokens)])
    assert both == {0: 1.5}, "two words of one token"


def test_the_phrase_lets_the_demo_scorer_see_what_a_bare_word_does_not(scorer, pictures) -> None:
    from tasks.core.demo.scenes import sample_scenes
    from tasks.core.models.scorer import cosines

    scenes = list(sample_scenes("core tests", 16))
    names = [set(scene.categories) for scene in scenes]
    every = sorted(set().union(*names))

    def auc_of(phrase: str) -> float:
        texts = scorer.embed_texts([phrase.format(object=name) for name in every])
        pairs = [(i, j) for i in range(len(scenes)) for j in range(len(every))]
        scores = cosines(scorer.embed_images(pictures), texts[[j for _, j in pairs]], [i for i, _ in pairs])
        there = np.array([every[j] in names[i] for i, j in pairs])
        return auc(scores[there], scores[~there])

    assert auc_of(PHRASE) > 0.97
    assert auc_of("{object}") < 0.8
