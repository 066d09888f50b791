"""Rank correlations against ones worked out by hand, and what has none."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.core.reward.agreement import agreements

NAN = float("nan")


def by_pair(pairs) -> dict[tuple[str, str, str], tuple[float, int]]:
    return {(pair.a, pair.b, pair.scope): (pair.spearman, pair.n) for pair in pairs}


def test_pooled_and_within_image_are_those_worked_out_by_hand() -> None:
    # Image x: ranks 0 1 2 against 1 0 2, d^2 = 2, 1 - 6*2/(3*8) = 0.5. Image y: 0 1 against 1 0: -1.
    # Pooled: ranks 0 1 2 3 4 against 1 0 4 3 2 -> d = 1 1 2 0 2, d^2 = 10, 1 - 6*10/(5*24) = 0.5.
    scores = {"a": np.array([1.0, 2.0, 3.0, 10.0, 20.0]), "b": np.array([0.2, 0.1, 0.9, 0.8, 0.5])}
    got = by_pair(agreements(scores, ["x", "x", "x", "y", "y"]))
    assert got == {("a", "b", "pooled"): (pytest.approx(0.5), 5), ("a", "b", "within_image"): (pytest.approx(-0.25), 2)}


def test_ties_share_their_mean_rank() -> None:
    # Ranks 0.5 0.5 2 against 0 1 2: covariance 1.5, variances 1.5 and 2.
    got = by_pair(agreements({"a": np.array([1.0, 1.0, 2.0]), "b": np.array([1.0, 2.0, 3.0])}, ["x"] * 3))
    assert got["a", "b", "pooled"][0] == pytest.approx(1.5 / np.sqrt(1.5 * 2))


def test_liking_the_same_images_is_no_agreement_within_them() -> None:
    image, rng = np.repeat(np.arange(100), 4), np.random.default_rng(0)
    scores = {"a": image + 0.1 * rng.normal(size=400), "b": image + 0.1 * rng.normal(size=400)}
    got = by_pair(agreements(scores, [str(item) for item in image]))
    assert got["a", "b", "pooled"][0] > 0.99 and abs(got["a", "b", "within_image"][0]) < 0.2


def test_sentences_that_one_of_the_two_did_not_score_do_not_count() -> None:
    scores = {
        "a": np.array([1.0, 2.0, NAN, 3.0]),
        "b": np.array([1.0, 2.0, -9.0, NAN]),
        "c": np.array([3.0, 2.0, 1.0, 0.0]),
    }
    got = by_pair(agreements(scores, ["x"] * 4))
    assert got["a", "b", "pooled"] == (pytest.approx(1.0), 2)
    assert got["a", "c", "pooled"] == (pytest.approx(-1.0), 3)
    assert list(got) == [(a, b, scope) for a, b in ("ab", "ac", "bc") for scope in ("pooled", "within_image")]


@pytest.mark.parametrize("b", [[5.0, 5.0, 5.0], [NAN, NAN, NAN], [1.0, NAN, NAN]])
def test_what_has_no_order_has_no_correlation(b: list[float]) -> None:
    got = by_pair(agreements({"a": np.array([1.0, 2.0, 3.0]), "b": np.array(b)}, ["x"] * 3))
    assert np.isnan(got["a", "b", "pooled"][0])
    assert np.isnan(got["a", "b", "within_image"][0]) and got["a", "b", "within_image"][1] == 0


def test_images_with_one_sentence_are_left_out() -> None:
    scores = {"a": np.array([1.0, 2.0, 3.0]), "b": np.array([1.0, 2.0, 0.0])}
    assert by_pair(agreements(scores, ["x", "x", "y"]))["a", "b", "within_image"] == (pytest.approx(1.0), 1)


def test_another_number_of_scores_is_refused() -> None:
    with pytest.raises(ValueError, match=r"scores of a have shape \(2,\): want \[3\]"):
        agreements({"a": np.zeros(2), "b": np.zeros(3)}, ["x"] * 3)
