"""Sheets: fair sides, files as raters send them, and figures of ratings that can be worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tasks.core.analysis.ratings import cohen_kappa, krippendorff_alpha, rating_figures, wilson
from tasks.core.analysis.sheets import blank_ratings, draw_pairs, read_ratings, settle

IDS = [f"s{i}" for i in range(50)]


def read(text: str, name: str = "file") -> tuple[list, list]:
    return read_ratings(name, text, sheet="abc", pairs={1, 2, 3})


def test_sides_are_balanced_and_both_order_and_sides_come_from_the_seed() -> None:
    drawn = draw_pairs(IDS, 20, 0)
    assert sum(left for _, left in drawn) == 10
    assert drawn == draw_pairs(reversed(IDS), 20, 0)
    assert drawn != draw_pairs(IDS, 20, 1)
    assert [item for item, _ in drawn] != sorted(item for item, _ in drawn)
    assert sum(left for _, left in draw_pairs(IDS, 7, 0)) == 3
    # Not all of one side first: the order reveals nothing of the side.
    assert len({tuple(left for _, left in draw_pairs(IDS, 10, seed)) for seed in range(20)}) > 15


def test_more_pairs_than_items_is_an_error() -> None:
    with pytest.raises(ValueError, match="60 pairs of 50 items"):
        draw_pairs(IDS, 60, 0)


def test_a_blank_file_is_read_back_as_nothing_rated() -> None:
    assert read(blank_ratings("abc", [1, 2, 3])) == ([], [])


def test_files_are_read_as_spreadsheets_write_them() -> None:
    wanted = [(("Eva", 1), -1), (("Eva", 2), 0), (("Eva", 3), 1)]
    for mark in ",;\t":
        rows = ["sheet,rater,pair,rating", "abc,Eva,1,-1", "abc,Eva,2,0", "abc,Eva,3,+1"]
        text = "\ufeff" + "\r\n".join(row.replace(",", mark) for row in rows)
        assert read(text) == (wanted, [])


def test_a_row_without_a_rater_is_its_files() -> None:
    assert read("sheet,rater,pair,rating\nabc,,2,1\n", "anna")[0] == [(("anna", 2), 1)]


def test_what_can_not_count_is_reported_with_its_line() -> None:
    rows = ["zzz,Eva,1,1", "abc,Eva,9,1", "abc,Eva,x,1", "abc,Eva,2,5", "abc,Eva,3,", "abc,Eva,3,1"]
    ratings, problems = read("sheet,rater,pair,rating\n" + "\n".join(rows))
    assert ratings == [(("Eva", 3), 1)]
    assert [(problem.item_id, problem.reason) for problem in problems] == [
        ("file:2", "other_sheet"), ("file:3", "unknown_pair"), ("file:4", "unknown_pair"), ("file:5", "bad_rating"),
    ]  # fmt: skip


def test_a_file_without_its_columns_says_which() -> None:
    with pytest.raises(ValueError, match="no column rating, sheet"):
        read("rater,pair\nEva,1\n")


def test_repeats_count_once_and_contradictions_not_at_all() -> None:
    given = [(("Eva", 1), 1), (("Eva", 1), 1), (("Eva", 2), 1), (("Eva", 2), -1), (("Ben", 2), 0)]
    settled, problems = settle(given)
    assert settled == {("Eva", 1): 1, ("Ben", 2): 0}
    assert [(problem.item_id, problem.reason) for problem in problems] == [
        ("Eva pair 1", "duplicate"),
        ("Eva pair 2", "contradiction"),
    ]


def test_wilson_is_as_published() -> None:
    # Newcombe 1998, table I: 81 of 263 and 0 of 20.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0, 0.1611), abs=1e-4)
    assert all(map(math.isnan, wilson(0, 0)))


def test_agreement_coefficients_of_known_tables() -> None:
    # 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: 0.7 observed, 0.5 expected.
    assert cohen_kappa(np.array([[20, 5], [10, 15]])) == pytest.approx(0.4)
    assert cohen_kappa(np.array([[0, 0, 0], [0, 0, 0], [4, 0, 0]])) == 0
    assert math.isnan(cohen_kappa(np.diag([7, 0, 0])))
    # Krippendorff 2011, example B, binary, two observers: alpha = 0.095.
    assert krippendorff_alpha(np.array([[10, 4], [4, 2]])) == pytest.approx(0.095, abs=1e-3)
    assert krippendorff_alpha(np.diag([6, 4])) == 1
    assert math.isnan(krippendorff_alpha(np.diag([6, 0])))


RIGHT = {1: True, 2: False, 3: True, 4: False}


def by_name(verdicts: dict[tuple[str, int], int]) -> dict[tuple[str, str], tuple[float, int]]:
    return {
        (figure.rater, figure.metric): (figure.value, figure.n)
        for figure in rating_figures(verdicts, RIGHT, resamples=100)
    }


def test_ties_count_against_and_what_is_missing_is_counted() -> None:
    result = by_name({("Eva", 1): 1, ("Eva", 2): 1, ("Eva", 3): 0})
    assert result["", "win_rate"] == (pytest.approx(2 / 3), 3)
    assert result["", "tie_rate"] == (pytest.approx(1 / 3), 3)
    assert result["", "loss_rate"] == (0, 3)
    assert result["", "missing"] == (1, 4)
    assert result["Eva", "win_rate"] == result["", "win_rate"]
    assert ("", "cohen_kappa") not in result


def test_a_rater_who_always_chooses_one_side_shows() -> None:
    # The author stood right in pairs 1 and 3, and won there only.
    result = by_name({("Eva", 1): 1, ("Eva", 2): -1, ("Eva", 3): 1, ("Eva", 4): -1})
    assert result["", "right_rate"] == (1, 4)
    assert result["", "win_rate"] == (0.5, 4)


def test_two_raters_have_kappa_and_three_alpha_over_the_pairs_that_several_rated() -> None:
    eva = {("Eva", 1): 1, ("Eva", 2): -1, ("Eva", 3): 0, ("Eva", 4): 1}
    result = by_name(eva | {("Ben", 1): 1, ("Ben", 2): -1, ("Ben", 3): 0})
    assert result["", "cohen_kappa"] == (1, 3)
    assert result["", "win_rate"] == (pytest.approx(3 / 7), 7)
    three = by_name(eva | {("Ben", 1): 1, ("Ann", 1): 1, ("Ann", 2): 1})
    value, n = three["", "krippendorff_alpha"]
    # Coincidences: pair 1 gives 3 of (+, +), pair 2 one (+, -) and one (-, +).
    assert (value, n) == (pytest.approx(1 - 4 * 2 / (25 - 17)), 2)


def test_ratings_of_one_pair_do_not_make_it_two_pairs() -> None:
    """Ten raters who all give four pairs the same ratings know no more than one of them: the interval stays as wide."""
    pairs = {1: 1, 2: -1, 3: 1, 4: -1}
    many = {(f"r{i}", pair): verdict for i in range(10) for pair, verdict in pairs.items()}
    pooled = next(figure for figure in rating_figures(many, RIGHT) if (figure.rater, figure.metric) == ("", "win_rate"))
    assert (pooled.value, pooled.n) == (0.5, 40)
    assert pooled.high - pooled.low >= 0.75
    assert (pooled.low, pooled.high) != wilson(20, 40)
