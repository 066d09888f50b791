"""Drift: hand-made captions whose figures are known, bounds on both sides, and what is there by chance."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tasks.core.benchmarks.drift import beyond, divergence, drift_figures, read_caption
from tasks.core.metrics import Estimate, bootstrap_draws

BASE = ["A dog runs on grass. A cat sleeps.", "A red car waits.", "Two men talk here.", "A bird sits on a wall."]


def figures(candidate: list[str], base: list[str] = BASE) -> dict[str, Estimate]:
    return drift_figures(candidate, base, draws=bootstrap_draws(len(base), 200, 1))


def test_a_caption_is_counted_within_its_sentences() -> None:
    item = read_caption("A dog runs. A dog sleeps. a dog runs!")
    assert item.pairs.count(("a", "dog")) == 3
    assert ("runs", "a") not in item.pairs
    assert (item.sentences, item.repeated, len(item.words)) == (3, 1, 9)


def test_divergence_is_zero_for_the_same_and_one_for_nothing_in_common() -> None:
    assert divergence(np.array([2.0, 2.0]), np.array([1.0, 1.0])) == 0
    assert divergence(np.array([1.0, 0.0]), np.array([0.0, 3.0])) == 1
    # H([3/4, 1/4]) - (H([1/2, 1/2]) + H([1, 0])) / 2 = 0.8113 - 0.5
    assert divergence(np.array([1.0, 1.0]), np.array([5.0, 0.0])) == pytest.approx(0.311278, abs=1e-6)
    nothing = np.zeros(2)
    assert (divergence(nothing, nothing), divergence(nothing, np.ones(2))) == (0, 1)


def test_the_same_captions_have_not_moved() -> None:
    same = figures(BASE)
    assert (same["length_change"].value, same["ngram_drift"].value, same["ngram_drift_chance"].value) == (0, 0, 0)
    assert (same["vocabulary_kept"].value, same["shared_pairs"].value) == (1, 1)
    assert same["distinct_2"].value == same["distinct_2_base"].value


def test_known_changes_have_their_figures() -> None:
    # 22 words become 27, 17 different ones 18; the second caption has its sentence twice.
    changed = figures([BASE[0], "A red car waits. A red car waits. Blue.", *BASE[2:]])
    assert changed["length_change"].value == pytest.approx(5 / 22)
    assert changed["vocabulary_kept"].value == pytest.approx(17 / 18)
    assert changed["repetition"].value == pytest.approx(1 / 7)
    assert changed["repetition_base"].value == 0
    assert changed["shared_pairs"].value == 1
    assert changed["distinct_2"].value < changed["distinct_2_base"].value
    assert 0 < changed["ngram_drift"].value < 0.1


def test_intervals_hold_the_estimate_and_figures_of_types_have_none() -> None:
    changed = figures(["A dog is here. It runs.", BASE[1], "Two men.", "A bird sits on a roof."])
    for name in ("length_change", "ngram_drift", "shared_pairs", "repetition"):
        item = changed[name]
        assert item.ci_low <= item.value <= item.ci_high, name
        assert item.n == 4
    for name in ("vocabulary_kept", "distinct_2", "distinct_2_base"):
        assert math.isnan(changed[name].ci_low), name


def test_a_drift_is_distinguished_from_what_is_there_by_chance() -> None:
    """Two models that write alike diverge too, as samples do; a new turn of phrase in every caption stands out."""
    rng = np.random.default_rng(0)
    nouns = [f"noun{i}" for i in range(30)]

    def captions_of(pattern: str) -> list[str]:
        return [" ".join(pattern.format(nouns[i]) for i in rng.integers(0, 30, 6)) for _ in range(60)]

    alike = figures(captions_of("There is a {}."), captions_of("There is a {}."))
    assert alike["ngram_drift_chance"].ci_low <= alike["ngram_drift"].value <= alike["ngram_drift_chance"].ci_high
    moved = figures(captions_of("I see one {}."), captions_of("There is a {}."))
    assert moved["ngram_drift"].value == 1 > moved["ngram_drift_chance"].ci_high


def test_other_images_and_a_silent_base_are_errors() -> None:
    with pytest.raises(ValueError, match="3 and 4 captions"):
        figures(BASE[:3])
    with pytest.raises(ValueError, match="every caption of the base is empty"):
        figures(BASE, ["", " ", "", ""])


def test_a_silent_candidate_is_far_away() -> None:
    silent = figures([""] * 4)
    assert (silent["length_change"].value, silent["ngram_drift"].value) == (-1, 1)


NO_BOUND = {"max_length_change": None, "max_ngram_drift": None, "max_general_drop": None}


def test_bounds_are_passed_in_both_directions_of_length_and_by_divergence() -> None:
    shorter = figures([text.split(".")[0] for text in BASE])
    longer = figures([f"{text} It is a sunny day." for text in BASE])
    for item in (shorter, longer):
        assert beyond(item, None, **NO_BOUND) == []
        (message,) = beyond(item, None, **NO_BOUND | {"max_length_change": 0.01})
        assert "in length, at most 1.0% either way" in message
        assert beyond(item, None, **NO_BOUND | {"max_length_change": 5.0}) == []
    (message,) = beyond(longer, None, **NO_BOUND | {"max_ngram_drift": 0.01})
    assert "word pairs diverge by" in message and "by chance" in message


@pytest.mark.parametrize(
    ("interval", "within"),
    [
        ((-0.01, -0.04, 0.02), True),
        ((-0.01, -0.06, 0.04), False),
        ((0.0, -0.05, 0.05), False),
        ((-0.2, -0.3, -0.1), False),
        ((0.0, math.nan, math.nan), False),
    ],
)
def test_general_accuracy_is_within_only_where_its_lower_end_is(
    interval: tuple[float, float, float], within: bool
) -> None:
    assert (beyond(figures(BASE), interval, **NO_BOUND | {"max_general_drop": 0.05}) == []) is within


def test_a_bound_on_what_was_not_measured_is_an_error() -> None:
    with pytest.raises(ValueError, match="not measured"):
        beyond(figures(BASE), None, **NO_BOUND | {"max_general_drop": 0.05})
