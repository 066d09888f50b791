"""The gate's rules and the requests to a teacher: which forms of a staged answer are right, and what counts as agreement."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.benchmarks.answers import AnswerItem, answer_ratios
from tasks.core.search.stages import STAGES, closing, opening
from tasks.core.staged.answers import (
    agreement_problem,
    form_problem,
    in_stages,
    judged_valid,
    judging_request,
    majority,
    rule,
    staged_reply,
    stages_of,
    stated,
    teaching_request,
    without_tags,
)
from tasks.report.marked_text import answers_of, staged_html
from tasks.report.rounds import markdown_table, metrics_of, round_rows
from tasks.report.views import verdict_lines

S, C, R, E = (opening(stage) + f"{stage.lower()} text" + closing(stage) for stage in STAGES)
GOOD = S + C + R + E
texts = st.text(st.characters(exclude_characters="<>"), min_size=1).filter(str.strip)


@given(st.tuples(texts, texts, texts, texts))
def test_four_stages_are_read_as_they_were_written(contents) -> None:
    text = in_stages(contents)
    assert stages_of(text) == tuple(content.strip() for content in contents)
    assert form_problem(text) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (GOOD, None),
        (f"  {S}\n\n{C}\n{R} {E}\n", None),
        ("", "no_answer"),
        (" \n", "no_answer"),
        (S + C + R + "<CONCLUSION> </CONCLUSION>", "no_answer"),
        ("It is a dog.", "not_tagged"),
        ("</SUMMARY> it is", "not_tagged"),
        (S + C + R, "incomplete"),
        (S + C + R + "<CONCLUSION>a dog", "incomplete"),  # cut off
        (S + R + C + E, "incomplete"),  # out of place
        (S + C + R + E + E, "incomplete"),  # twice
        (S + S + C + R + E, "incomplete"),
        (S + C + E, "incomplete"),
        ("<SUMMARY></SUMMARY>" + C + R + E, "incomplete"),
        ("Sure: " + GOOD, "incomplete"),
        (GOOD + " I hope this helps.", "incomplete"),
        (S + "and" + C + R + E, "incomplete"),
        (f"<SUMMARY>{C}</SUMMARY>{C}{R}{E}", "incomplete"),  # nested
    ],
)
def test_every_wrong_form_has_its_reason(text: str, problem: str | None) -> None:
    assert form_problem(text) == problem


def test_the_form_is_judged_before_the_conclusion() -> None:
    assert rule(GOOD, lambda text: None) == ("conclusion text", "accepted")
    assert rule(GOOD, lambda text: "wrong" if text == "conclusion text" else None) == ("conclusion text", "wrong")
    assert rule(S + E, lambda text: "wrong") == ("conclusion text", "incomplete")
    assert rule("a dog", lambda text: "wrong") == ("", "not_tagged")


def test_a_plain_answer_states_all_of_itself_and_an_unfinished_one_nothing() -> None:
    assert stated("Two.") == "Two."
    assert stated(GOOD) == "conclusion text"
    assert stated(S + C + R + "<CONCLUSION>a d") == "a d"
    assert stated(S + C) == ""


def answer(concluded: str) -> str:
    return in_stages(["plan", "seen", "thought", concluded])


def test_the_majority_is_of_all_answers_also_of_those_that_conclude_nothing() -> None:
    texts = [answer("A dog."), "dog", answer("cat"), S + C, ""]
    assert majority(texts) == ("dog", 2 / 5)
    assert majority([S, ""]) == ("", 0.0)
    assert majority([]) == ("", 0.0)
    assert majority(["two", "3", "2", "three"]) == ("2", 0.5)  # of equals the first


@pytest.mark.parametrize(
    ("concluded", "least", "problem"),
    [
        ("The Dog", 0.5, None),
        ("dog", 0.51, "no_majority"),
        ("cat", 0.5, "disagrees"),
        ("cat", 0.6, "no_majority"),
    ],
)
def test_a_conclusion_must_be_the_majoritys_and_the_majority_large_enough(
    concluded: str, least: float, problem: str | None
) -> None:
    votes = [answer("dog"), answer("a dog"), answer("cat"), answer("bird")]
    assert agreement_problem(concluded, votes, least) == problem


def test_nothing_agrees_where_nobody_voted() -> None:
    assert agreement_problem("", ["", S], 0.0) == "no_majority"
    assert agreement_problem("dog", [], 0.0) == "no_majority"


def test_requests_hold_what_must_be_known_and_judges_do_not_see_the_reasoning() -> None:
    request = teaching_request("How many dogs?", "3")
    assert "How many dogs?" in request and request.rstrip().endswith("3")
    for stage in STAGES:
        assert opening(stage) in request and closing(stage) in request
    judged = judging_request("How many dogs?", "3", "three of them")
    assert all(part in judged for part in ("How many dogs?", "3", "three of them", "valid", "invalid"))


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (GOOD, in_stages([f"{stage.lower()} text" for stage in STAGES])),
        (f"Here you are:\n```\n{S}\n{C}\n{R}\n{E}\n```", in_stages([f"{stage.lower()} text" for stage in STAGES])),
        ("I can't help with that.", None),
        (S + C + R, None),
        (S + C + R + "<CONCLUSION></CONCLUSION>", None),
        (f"{E}{S}", None),
        (GOOD + GOOD, None),
    ],
)
def test_a_teachers_answer_is_taken_out_of_what_stands_around_it(reply: str, text: str | None) -> None:
    assert staged_reply(reply) == text


@pytest.mark.parametrize(
    ("reply", "valid"),
    [
        ("valid", True),
        (" Valid.\n", True),
        ("**invalid**", False),
        ("INVALID", False),
        ("not valid", None),
        ("valid or invalid", None),
        ("The answer is valid", None),
        ("", None),
    ],
)
def test_only_one_of_the_two_words_is_a_verdict(reply: str, valid: bool | None) -> None:
    assert judged_valid(reply) is valid


def test_tags_are_no_words() -> None:
    assert without_tags(GOOD).split() == " ".join(f"{stage.lower()} text" for stage in STAGES).split()


# The benchmark


def test_accuracy_is_over_all_and_over_each_kind() -> None:
    items = [
        AnswerItem(True, True, "what", 4), AnswerItem(False, True, "what", 6),
        AnswerItem(True, False, "where", 2), AnswerItem(True, True, "where", 0),
    ]  # fmt: skip
    values = {name: ratio.value() for name, ratio in answer_ratios(items).items()}
    assert values == {"accuracy": 0.75, "staged": 0.75, "accuracy_what": 0.5, "accuracy_where": 1.0, "length": 3.0}


def test_one_kind_alone_is_not_reported_twice() -> None:
    assert list(answer_ratios([AnswerItem(True, True, "file", 1)])) == ["accuracy", "staged", "length"]


# What people see


def test_a_whole_staged_answer_is_shown_by_its_stages_and_all_else_as_it_came() -> None:
    shown = staged_html(in_stages(["I look.", "a < b", "so", "<b>2</b> dogs"]))
    assert shown.startswith('<span class="stage">summary</span> I look. <span class="stage">caption</span> a &lt; b')
    assert shown.endswith('<span class="stage">conclusion</span> <b>&lt;b&gt;2&lt;/b&gt; dogs</b>')
    assert staged_html("<CONCLUSION>2<script>") == "&lt;CONCLUSION&gt;2&lt;script&gt;"


def test_answers_stand_in_the_order_of_the_table_and_are_judged_by_their_score() -> None:
    rows = [
        {"subject": "round-1", "decoding": "greedy", "value": 0.0, "detail": json.dumps({"text": "3"})},
        {"subject": "base", "decoding": "greedy", "value": 1.0, "detail": json.dumps({"text": "2"})},
    ]
    order = [("base", "greedy"), ("base", "swires"), ("round-1", "greedy")]
    assert answers_of(rows, order, ["a", "b", "c"]) == [("a", "2", True, "right"), ("c", "3", False, "wrong")]


def test_the_refusal_table_has_a_line_an_attempt_and_the_most_frequent_reason_first() -> None:
    counted = [(1, 1, "accepted", 2), (1, 0, "wrong", 3), (1, 0, "accepted", 9), (1, 0, "incomplete", 5)]
    keys = ("round", "attempt", "reason", "answers")
    lines = verdict_lines([dict(zip(keys, item, strict=True)) for item in counted])
    assert [(line["attempt"], line["answers"], line["accepted"]) for line in lines] == [(1, 17, 9), (2, 2, 2)]
    assert lines[0]["refused"] == [("incomplete", 5), ("wrong", 3)]


def test_the_table_of_rounds_has_the_benchmarks_own_columns() -> None:
    def metric(benchmark: str, decoding: str, name: str) -> dict[str, object]:
        return {
            "benchmark": benchmark, "subject": "base", "decoding": decoding, "metric": name, "value": 0.5,
            "ci_low": 0.4, "ci_high": 0.6, "n": 9,
        }  # fmt: skip

    result = [metric("vqa", d, n) for d in ("swires", "staged", "greedy") for n in ("staged", "accuracy", "length")]
    rows = round_rows([*result, metric("chair", "greedy", "recall")], [], [], "vqa")
    assert [row.label for row in rows] == [
        "base, greedy",
        "base, instructed to answer in stages",
        "base + search (swires)",
    ]
    assert metrics_of(rows) == ["accuracy", "staged", "length"]
    assert markdown_table(rows).splitlines()[0] == "| | Accuracy % | Staged % | Length |"
    assert "50.0 [40.0, 60.0]" in markdown_table(rows)
    assert metrics_of([]) == ["chair_s", "chair_i", "recall", "length"]
