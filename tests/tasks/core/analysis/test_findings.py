"""Which conclusions the figures of an experiment support: sure only what intervals show, seeds together, knees, lines."""

from __future__ import annotations

import dataclasses
import math

import pytest

from storage.schema import Caption, Finding, SearchStep, Value
from tasks.core.analysis import observations as seen
from tasks.core.analysis.findings import Findings, line_of, listed, measure_of
from tasks.core.analysis.pair_verdicts import Pair, guide_counts, pairs_of, policy_counts
from tasks.core.benchmarks.estimates import Intervals, clustered_estimate


def row(arm, metric, value, low=None, high=None, x=None, seed=0, n=100):
    return Finding("e", arm, x, seed, metric, value, low, high, n)


def curve(metric="chair_i", worse=2):
    """K = 1, 2, 4, 8 of one line; the first `worse` of them surely worse than the last."""
    rows = []
    for index, x in enumerate((1, 2, 4, 8)):
        rows.append(row(f"visvm@{x}", metric, 0.3 - 0.05 * index, 0.2, 0.4, float(x)))
        if x != 8:
            low, high = (0.01, 0.03) if index < worse else (-0.01, 0.05)
            rows.append(row(f"visvm@{x}", f"{metric} - visvm@8", 0.02, low, high, float(x)))
    return Findings(rows)


def test_a_figure_is_shown_in_its_unit_with_its_interval() -> None:
    findings = Findings([row("a", "chair_i", 0.3171, 0.2994, 0.331), row("a", "tokens", 160.04)])
    assert findings.text("a", "chair_i") == "31.7 % (29.9 to 33.1)"
    assert findings.text("a", "tokens") == "160.0 tokens"
    assert findings.text("a", "recall") == findings.text("b", "chair_i") == "unknown"


@pytest.mark.parametrize(
    ("diff", "low", "high", "text", "verdict"),
    [
        (-0.031, -0.042, -0.02, "surely lower by 3.1 points (2.0 to 4.2)", "better"),
        (0.031, 0.02, 0.042, "surely higher by 3.1 points (2.0 to 4.2)", "worse"),
        (-0.002, -0.013, 0.009, "no difference seen (-0.2 points, -1.3 to 0.9)", ""),
        (0.0, 0.0, 0.0, "no difference seen (0.0 points, 0.0 to 0.0)", ""),
        (0.01, None, None, "no difference seen (1.0 points)", ""),
    ],
)
def test_only_an_interval_without_zero_is_sure(diff, low, high, text, verdict) -> None:
    findings = Findings([row("a", "chair_i - b", diff, low, high)])
    assert findings.compared("a", "b", "chair_i") == text
    assert findings.surely("a", "b", "chair_i") == verdict


def test_a_difference_can_be_had_the_other_way_round() -> None:
    findings = Findings([row("a", "recall - b", -0.031, -0.042, -0.02)])
    assert findings.compared("b", "a", "recall") == "surely higher by 3.1 points (2.0 to 4.2)"
    assert (findings.surely("a", "b", "recall"), findings.surely("b", "a", "recall")) == ("worse", "better")


def of_seeds(values, stderr=0.002):
    return Findings([row("a", "chair_i - b", v, v - 2 * stderr, v + 2 * stderr, seed=i) for i, v in enumerate(values)])


def test_the_seed_is_a_random_effect_in_what_is_sure() -> None:
    sure = of_seeds((-0.030, -0.029, -0.031))
    assert sure.surely("a", "b", "chair_i") == "better"
    # 3 points less 4.303 standard errors of the mean; the images' 0.2 points count, as the seeds' 0.1 are fewer.
    assert sure.change("a", "b", "chair_i").cell.low == pytest.approx(-3.0 - 4.303 * 0.204 / 3**0.5, abs=0.002)
    assert of_seeds((-0.030, -0.010, -0.050)).surely("a", "b", "chair_i") == ""


def test_every_seed_on_one_side_is_perhaps_and_seeds_that_part_are_no_difference() -> None:
    text = of_seeds((-0.030, -0.010, -0.050)).compared("a", "b", "chair_i")
    assert text == "perhaps lower by 3.0 points (-2.0 to 8.0)"
    assert of_seeds((-0.030, 0.010, -0.050)).compared("a", "b", "chair_i").startswith("no difference seen (-2.3 points")


def test_a_difference_that_a_seed_lacks_is_never_sure() -> None:
    rows = [*of_seeds((-0.030, -0.0301, -0.0299)).rows, row("b", "chair_i", 0.1, seed=3)]
    assert Findings(rows).compared("a", "b", "chair_i").startswith("perhaps lower by 3.0 points (")


def test_of_several_seeds_a_figure_has_the_interval_over_seeds_within_its_bounds() -> None:
    rows = [row("a", "chair_i", v, v - 0.01, v + 0.01, seed=i) for i, v in enumerate((0.20, 0.21, 0.22))]
    assert Findings(rows).text("a", "chair_i") == "21.0 % (18.5 to 23.5)"
    rows = [row("a", "chair_i", v, 0.0, 0.02, seed=i) for i, v in enumerate((0.0, 0.01, 0.02))]
    assert Findings(rows).text("a", "chair_i") == "1.0 % (0.0 to 3.5)"


# Several differences are judged together.


def family_of(*z_values, metric="chair_i"):
    """A difference of -0.01 for each, so many standard errors from zero."""
    rows = [row(f"a{i}", f"{metric} - b", -0.01, -0.02, -0.0001, n=10_001) for i, _ in enumerate(z_values)]
    return Findings([dataclasses.replace(r, stderr=0.01 / z) for r, z in zip(rows, z_values, strict=True)])


def test_sure_differences_survive_holm_within_the_experiment() -> None:
    # p = .0100, .0201, .0300: times 3, 2, 1 is .0300, .0402, .0402 (not less than the one before).
    findings = family_of(2.5758, 2.3245, 2.1701)
    assert [*findings.family.values()] == pytest.approx([0.0300, 0.0402, 0.0402], abs=2e-4)
    assert all(findings.surely(f"a{i}", "b", "chair_i") == "better" for i in range(3))
    # p = .0455: times 3 is .1365, so that none of three is sure, and one alone is.
    assert [family_of(*[2.0] * 3).compared(f"a{i}", "b", "chair_i").split()[0] for i in range(3)] == ["perhaps"] * 3
    assert family_of(2.0).surely("a0", "b", "chair_i") == "better"


def test_only_judged_measures_share_in_the_correction_and_the_others_are_not_called_sure() -> None:
    lengths = family_of(*[2.0] * 40, metric="length")
    assert not lengths.family and lengths.compared("a0", "b", "length") == "lower by 0.0 words (0.0 to 0.0)"
    assert Findings([*lengths.rows, *family_of(2.0).rows]).surely("a0", "b", "chair_i") == "better"


def test_a_difference_that_was_measured_both_ways_counts_once() -> None:
    there = family_of(2.0).rows[0]
    back = dataclasses.replace(there, arm="b", metric="chair_i - a0", value=0.01, ci_low=0.0001, ci_high=0.02)
    both = Findings([there, back])
    assert len(both.family) == 1
    assert (both.surely("a0", "b", "chair_i"), both.surely("b", "a0", "chair_i")) == ("better", "worse")


def test_a_change_is_a_difference_itself() -> None:
    findings = Findings([row("a", "general_change", -0.1, -0.15, -0.05), row("a", "length_change", -0.1, -0.15, -0.05)])
    assert findings.own_change("a", "general_change").side == -1 and findings.own_change("a", "length_change").side == 0
    assert findings.own_change("b", "general_change") is None


def test_the_knee_is_the_first_that_is_not_surely_worse_than_the_last() -> None:
    assert curve(worse=2).knee("visvm", "chair_i") == "visvm@4"
    assert curve(worse=0).knee("visvm", "chair_i") == "visvm@1"
    assert curve(worse=3).knee("visvm", "chair_i") == "visvm@8"


def test_lines_are_by_x_and_arms_without_x_are_their_own() -> None:
    findings = Findings(
        [row("v@10", "recall", 1.0, x=10.0), row("v@2", "recall", 1.0, x=2.0), row("stage@2", "recall", 1.0)]
    )
    assert findings.lines() == ["v", "stage@2"] and findings.line("v") == ["v@2", "v@10"]
    assert line_of("vimar:by=score@6") == "vimar:by=score" and line_of("greedy") == "greedy"


def test_arms_stand_in_the_order_that_is_given() -> None:
    rows = [row("a", "recall", 1.0), row("b", "recall", 1.0), row("c", "recall", 1.0)]
    assert Findings(rows, ["c", "a"]).arms == ["c", "a", "b"]


def test_the_best_is_the_highest_where_more_is_better_and_unknown_ones_do_not_count() -> None:
    findings = Findings([row("a", "recall", 0.5), row("b", "recall", 0.9), row("c", "recall", math.nan)])
    assert findings.best("recall") == "b" and findings.best("chair_i") == ""
    assert Findings([row("a", "chair_i", 0.5), row("b", "chair_i", 0.9)]).best("chair_i") == "a"


def test_words_are_joined_as_people_do() -> None:
    assert [listed(list(text)) for text in ("", "a", "ab", "abc")] == ["", "a", "a and b", "a, b and c"]
    assert measure_of("stop: reward").unit == " %" and measure_of("chair_i - greedy").points == " points"
    assert measure_of("never heard of").title == "never heard of"


# What traces show.


def step(sample, step, candidate, text, guide=None, chosen=False, t=0.0, phase=None, value=None):
    return SearchStep(sample, "s", step, candidate, t, text, guide, None, value, chosen, False, None, phase)


def caption(sample, text, stop="end", steps=2):
    return Caption(sample, "i", "p", "s", text, steps, stop, 4, 40)


TRUTH = {"a": {"dog"}, "b": {"cat"}}
TRACE = [
    step("a", 0, 0, "A dog.", 0.5, chosen=True),
    step("a", 0, 1, "A cat.", 0.1, t=0.5),
    step("b", 0, 0, "A dog.", 0.2, t=0.0),
    step("b", 0, 1, "A cat.", 0.2, chosen=True, t=0.5),
]
CAPTIONS = [caption("a", "A dog. It sits."), caption("b", "A cat.", stop="vote")]


def test_habits_count_choices_stops_and_hallucinations() -> None:
    result = {name: ratio.value() for name, ratio in seen.habits(CAPTIONS, TRACE, TRUTH).items()}
    assert result["stop: end"] == result["stop: vote"] == result["T=0"] == result["T=0.5"] == 0.5
    assert result["sentences"] == 1.5 and result["wrong_proposed"] == 0.5 and result["wrong_chosen"] == 0
    assert result["ties"] == 0.5 and result["step_spread"] == pytest.approx(0.1) and result["distinct"] == 1.0
    assert "refined" not in result


def test_a_sentence_is_refined_if_another_one_or_none_takes_its_place() -> None:
    def refined(*steps):
        trace = [step("a", 0, 0, "A dog. A cat.", chosen=True, phase="answers"), *steps]
        result = seen.habits([caption("a", "A dog.")], trace, TRUTH)
        return result["refined"].value(), result["changed"].value()

    first = step("a", 1, 0, "A dog.", chosen=True, phase="refine")
    weak = step("a", 2, 0, "A cat.", phase="refine")
    assert refined(first) == (0, 0)
    assert refined(first, weak, step("a", 2, 1, "A cup.", phase="refine")) == (1, 1)  # dropped
    assert refined(first, weak, step("a", 2, 1, "A dog.", chosen=True, phase="refine")) == (1, 1)
    appended = step("a", 2, 0, "Grass.", chosen=True, phase="refine")  # as many candidates as answers: nothing replaced
    assert refined(first, appended) == (0, 0)


def test_agreement_is_of_captions_first_sentences_and_the_order_of_first_candidates() -> None:
    other = [step("a", 0, 0, "A dog.", value=1.0, chosen=True), step("a", 0, 1, "A cat.", value=0.0),
             step("b", 0, 0, "A dog.", value=1.0, chosen=True), step("b", 0, 1, "A cat.", value=0.0)]  # fmt: skip
    result = seen.agreement(CAPTIONS, TRACE, {"a": "A dog. It sits.", "b": "A dog."}, other)
    assert result["agreement"].value() == result["first_agreement"].value() == 0.5
    # Sample b's scores are tied and rank nothing.
    assert result["pair_agreement"].value() == 1.0 and result["pair_agreement"].bottom.tolist() == [1, 0]


def test_a_guide_is_judged_within_an_image() -> None:
    sentences = seen.judged_sentences([*TRACE, step("a", 1, 0, "It is fine.", 9.0), step("a", 1, 1, "A cat.")], TRUTH)
    assert [(sentence.group, sentence.wrong) for sentence in sentences] == [
        ("a", False),
        ("a", True),
        ("b", True),
        ("b", False),
    ]
    assert seen.ranking_aucs(sentences) == [1.0, 0.5]
    assert seen.pooled_auc(sentences) == pytest.approx((1 + 1 + 1 + 0.5) / 4)


def test_rank_correlation_is_with_what_followed() -> None:
    rows = [Value("a-greedy", i, 0.0, float(i), 0.0, float(-i), "a", str(i), 0.9) for i in range(4)]
    assert seen.return_correlation(rows) == -1.0 and math.isnan(seen.return_correlation(rows[:2]))


def test_items_of_a_group_are_drawn_together() -> None:
    value, _, low, high, n = clustered_estimate(
        [[0.0] * 50, [1.0] * 50], lambda items: sum(items) / len(items), Intervals(400)
    )
    assert (value, low, high, n) == (0.5, 0.0, 1.0, 100)  # alone, a hundred items would leave a narrow interval
    assert math.isnan(clustered_estimate([[1.0]], lambda items: 1.0, Intervals(9)).stderr)


# Pairs of answers.

PAIRS = [Pair("a", "A cat.", "A dog.", 1), Pair("a", "A cat.", "A cup.", 0)]


def test_pairs_are_the_greedy_answer_with_the_others_and_fewer_absent_objects_are_better() -> None:
    answers = [step("a", 0, i, text) for i, text in enumerate(["A cat.", "A dog.", "A cat.", "A cup.", ""])]
    assert pairs_of([*answers, step("a", 1, 0, "later"), step("zz", 0, 0, "not asked")], TRUTH) == PAIRS


def test_a_verdict_counts_where_both_orders_name_one_answer() -> None:
    def counts_of(*replies):
        return {name: ratio.value() for name, ratio in policy_counts(PAIRS, replies, ["a"]).items()}

    first, second, none = "I choose response 1", "I choose response 2", "well"
    right = counts_of((second, first), (second, first))
    assert right == {"undecided": 0, "first_wins": 0.5, "swap_agreement": 1, "pair_accuracy": 1}
    always_first = counts_of((first, first), (first, first))
    assert always_first == {"undecided": 0, "first_wins": 1, "swap_agreement": 0, "pair_accuracy": 0.5}
    assert counts_of((none, none), (none, none)) == {"undecided": 1, "swap_agreement": 0, "pair_accuracy": 0.5}
    assert counts_of((first, second), (none, none))["pair_accuracy"] == 0


def test_a_number_judges_by_the_larger_and_ties_are_half() -> None:
    guides = {("a", "A cat."): 0.1, ("a", "A dog."): 0.3, ("a", "A cup."): 0.2}
    assert guide_counts(PAIRS, guides, ["a"])["pair_accuracy"].value() == 1.0
    assert guide_counts(PAIRS, {**guides, ("a", "A dog."): 0.1}, ["a"])["pair_accuracy"].value() == 0.5
    assert guide_counts(PAIRS, {("a", "A cat."): 0.1}, ["a"]) == {}
