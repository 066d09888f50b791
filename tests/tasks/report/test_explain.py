"""A trace for people: nothing is lost, numbers have three decimals, bars are in proportion."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.search.contract import SearchResult
from tasks.report.explain import WHY, explain_steps, trace_dicts, tree, why
from tests.support.made_captions import answers, guided, revised, row

MADE = [guided, answers, revised]
numbers = st.none() | st.floats(-2, 2) | st.just(math.nan) | st.just(math.inf)
traces = st.lists(st.tuples(st.integers(0, 3), numbers, numbers, st.booleans()), max_size=20).map(
    lambda drawn: [row(s, i, f"Text {i}.", a, b, chosen=c) for i, (s, a, b, c) in enumerate(drawn)]
)


@pytest.mark.parametrize("made", MADE)
def test_every_candidate_is_shown_once_and_in_order(made) -> None:
    rows = made().trace
    shown = [candidate for step in explain_steps(rows) for candidate in step.candidates]
    assert [(candidate.text, candidate.chosen) for candidate in shown] == [
        (candidate.proposal.text, candidate.chosen) for candidate in rows
    ]
    assert [(entry["text"], entry["score"], entry["step"]) for entry in trace_dicts(rows)] == [
        (entry.proposal.text, entry.score, entry.step) for entry in rows
    ]


def test_numbers_have_three_decimals_and_what_is_missing_is_empty() -> None:
    first, last = explain_steps(guided().trace)[0], explain_steps(guided().trace)[2]
    assert [(c.temperature, c.value, c.score) for c in first.candidates] == [
        ("0.000", "0.604", "0.312"), ("0.200", "0.431", "0.288"), ("0.400", "-0.212", "0.104"),
    ]  # fmt: skip
    assert (last.candidates[0].value, last.candidates[0].score, last.candidates[0].width) == ("", "", 0)


def test_a_step_is_drawn_by_value_where_it_has_one_else_by_score() -> None:
    assert {step.guide for step in explain_steps(guided().trace)} == {"value"}
    assert [step.guide for step in explain_steps(answers().trace)] == ["score"]
    assert [step.guide for step in explain_steps([row(0, 0, "A dog.", chosen=True)])] == [""]


@given(traces)
def test_bars_stay_on_the_scale_touch_zero_and_are_as_long_as_their_number(rows) -> None:
    steps = explain_steps(rows)
    for guide in ("value", "score"):
        known = [n for entry in rows if (n := getattr(entry, guide)) is not None and math.isfinite(n)]
        span = max([0, *known]) - min([0, *known])
        for zero, candidate in [(s.zero, candidate) for s in steps if s.guide == guide for candidate in s.candidates]:
            assert candidate.left >= 0 and candidate.left + candidate.width <= 100.02
            if candidate.width:
                assert min(abs(candidate.left - zero), abs(candidate.left + candidate.width - zero)) < 0.02
                if span > 0.1:
                    assert candidate.width == pytest.approx(100 * abs(float(getattr(candidate, guide))) / span, abs=1)


@given(traces)
def test_the_trace_is_json_without_nan(rows) -> None:
    assert len(json.loads(json.dumps(trace_dicts(rows), allow_nan=False))) == len(rows)


def test_the_reason_to_stop_is_explained_at_the_last_step() -> None:
    steps = explain_steps(guided().trace)
    assert [bool(step.stop) for step in steps] == [False, False, True]
    assert steps[-1].stop == f"reward: {WHY['reward']}"
    assert why("something new") == "something new"


def test_a_repeated_sentence_is_marked_only_where_it_was_not_scored() -> None:
    notes = [[candidate.note for candidate in step.candidates] for step in explain_steps(guided().trace)]
    assert notes == [["", "", ""], ["", "", "chosen before"], ["ends the answer", "", ""]]
    assert [candidate.note for candidate in explain_steps(revised().trace)[2].candidates] == ["ends the answer", ""]


def test_a_sentence_proposed_twice_in_a_step_points_to_the_first_of_them() -> None:
    (step,) = explain_steps([row(0, 0, "A dog.", 0.3, chosen=True), row(0, 1, "a dog"), row(0, 2, "A cat.", 0.2)])
    assert [candidate.note for candidate in step.candidates] == ["", "as above", ""]


def test_that_a_candidate_ends_the_answer_is_only_noted_where_others_do_not() -> None:
    assert {candidate.note for candidate in explain_steps(answers().trace)[0].candidates} == {""}
    (empty,) = explain_steps([row(0, 0, "", ended=True)])[0].candidates
    assert empty.note == "ends the answer"


def test_phases_are_steps_of_their_own_and_named() -> None:
    titles = [step.title for step in explain_steps(revised().trace)]
    assert titles == ["step 1, answers", "step 2, refine", "step 3, refine"]
    both = [row(0, 0, "A.", phase="draft"), row(0, 0, "B.", phase="refine")]
    assert [step.title for step in explain_steps(both)] == ["step 1, draft", "step 1, refine"]


def test_lines_of_the_tree_stand_below_each_other_and_hold_no_line_breaks() -> None:
    branches = tree(explain_steps(guided().trace))
    lines = [line for _, lines in branches for _, line in lines if not line.startswith("stop")]
    assert lines[0] == f"T 0.000  value  0.604  score  0.312  {guided().sentences[0]}"
    assert lines[6] == f"T 0.000{' ' * 30}(nothing)  (ends the answer)"
    assert branches[-1][1][-1] == (False, f"stop: {why('reward')}")
    assert all("\n" not in line for _, lines in tree(explain_steps(answers().trace)) for _, line in lines)


def test_an_empty_trace_shows_nothing() -> None:
    assert explain_steps(SearchResult().finish("end").trace) == [] == tree([])
