"""Searches over the stages of tagged answers: the tags, the self-judge and stage beam."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.search.best_of_n import best_of_n
from tasks.core.search.judge import PURPOSES, verdict
from tasks.core.search.requests import Ask, Propose
from tasks.core.search.stage_beam import stage_beam
from tasks.core.search.stages import STAGES, closing, conclusion, content, is_whole
from tests.support.number_world import World, ending, number, proposed, run, script, tagged

# Stages


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<SUMMARY>S</SUMMARY> <CONCLUSION> It is red. </CONCLUSION>", "It is red."),
        ("<SUMMARY>S</SUMMARY> <CONCLUSION>It is", "It is"),
        ("<CONCLUSION>Red</CONCLUSION> <REASONING>x", "Red"),
        ("It is red.", "It is red."),
    ],
)
def test_the_conclusion_is_what_is_scored(text: str, shown: str) -> None:
    assert conclusion(text) == shown


def test_a_stage_is_whole_between_its_tags() -> None:
    assert is_whole("x <CAPTION>a</CAPTION>", "CAPTION")
    assert not is_whole("<CAPTION>a", "CAPTION") and not is_whole("a</CAPTION><CAPTION>", "CAPTION")
    assert content("<CAPTION> a </CAPTION> b", "CAPTION") == "a"


# The judge


@pytest.mark.parametrize(
    ("reply", "choice"),
    [
        ("I choose response 1.", 1), ("I choose Response 2", 2), ("2", 2), ("Response 1 is better.", 1),
        ("Response 1 is vague, so I prefer the second, I choose 2.", 2), ("Option 1 beats 2, I pick option 1", 1),
        ("I choose response 1. I choose response 2.", None), ("Both 1 and 2 are good.", None), ("", None),
        ("It is 1.5 m.", None), ("There are 12.", None), ("Neither.", None),
    ],
)  # fmt: skip
def test_a_verdict_counts_only_if_it_is_clear(reply: str, choice: int | None) -> None:
    assert verdict(reply) == choice


def prefers(better: Callable[[str, str], bool]) -> Callable[[str], str]:
    """A judge that compares the numbers of both texts, in whichever order they stand."""

    def judge(question: str) -> str:
        first, rest = question.split("Response 1:\n")[1].split("\n\nResponse 2:\n")
        second = rest.split("\n\n")[0]
        return f"I choose response {1 if better(first, second) else 2}"

    return judge


def inside(text: str) -> int:
    return number(text.split("<")[1].split(">")[1])


largest = prefers(lambda a, b: inside(a) > inside(b))

# Stage beam


def test_each_stage_goes_on_from_the_tournaments_winner() -> None:
    world = World(tagged(), judge=largest)
    result = run(stage_beam, world, options={"width": 4})
    requests = world.of(Propose)
    assert [request.until for request in requests] == [closing(stage) for stage in STAGES]
    assert [request.after.text if request.after else None for request in requests] == [None, *result.sentences[:-1]]
    for step in range(4):
        rows = [row for row in result.trace if row.step == step]
        (chosen,) = [row for row in rows if row.chosen]
        assert inside(chosen.proposal.text) == max(inside(row.proposal.text) for row in rows)
        assert {row.phase for row in rows} == {STAGES[step].lower()}
    assert (result.stop_reason, len(world.of(Ask))) == ("end", 4 * 3 * 2)
    assert conclusion(result.text) == content(result.sentences[-1], "CONCLUSION")


def test_both_orders_are_judged_with_the_question_and_the_answer_so_far() -> None:
    world = World(tagged(), judge=largest)
    result = run(stage_beam, world)
    for first, second in zip(world.of(Ask)[::2], world.of(Ask)[1::2], strict=True):
        shown, other = (q.question.split("Response 1:\n")[1].split("\n\n")[0] for q in (first, second))
        assert shown != other
        assert f"Response 2:\n{other}" in first.question and f"Response 2:\n{shown}" in second.question
        assert "What is there?" in first.question
    last = world.of(Ask)[-1].question
    assert " ".join(result.sentences[:-1]) in last and PURPOSES["conclusion"] in last


@pytest.mark.parametrize("always", ["I choose response 1", "I choose response 2", "Both are fine.", ""])
@given(width=st.integers(1, 5))
def test_a_judge_that_looks_at_the_position_never_changes_the_order(always: str, width: int) -> None:
    result = run(stage_beam, World(tagged(), judge=lambda question: always), options={"width": width})
    assert [row.candidate for row in result.trace if row.chosen] == [0, 0, 0, 0]


def asked_about(question: Ask) -> tuple[str, str]:
    """The two texts that a judge is shown."""
    first, rest = question.question.split("Response 1:\n")[1].split("\n\nResponse 2:\n")
    return first, rest.split("\n\n")[0]


@pytest.mark.parametrize(("reply", "winner"), [("Both are fine.", 1), ("I choose response 1.", 0), ("", 1)])
def test_released_pairs_are_drawn_and_what_is_no_vote_for_the_first_is_one_for_the_second(
    reply: str, winner: int
) -> None:
    world = World(tagged(), judge=lambda question: reply)
    result = run(stage_beam, world, published=True)
    assert len(world.of(Ask)) == 4
    assert result.sentences == [asked_about(question)[winner] for question in world.of(Ask)]


@pytest.mark.parametrize("width", [1, 2, 4, 7])
def test_random_pairs_ask_once_a_pair_and_find_what_a_sure_judge_prefers(width: int) -> None:
    world = World(tagged(), judge=largest)
    result = run(stage_beam, world, options={"width": width, "pairs": "random"}, seed=("desk", 3))
    assert len(world.of(Ask)) == 4 * (width - 1)
    best = run(stage_beam, World(tagged(), judge=largest), options={"width": width})
    assert result.sentences == best.sentences


def test_random_pairs_depend_on_the_seed_and_on_nothing_else() -> None:
    def pairs(*seed: str | int) -> list[tuple[str, str]]:
        world = World(tagged(), judge=largest)
        run(stage_beam, world, options={"width": 4, "pairs": "random"}, seed=seed)
        return list(map(asked_about, world.of(Ask)))

    assert pairs("search", 0, "a") == pairs("search", 0, "a")
    different = {tuple(pairs("search", seed, name)) for seed in (0, 1) for name in "abc"}
    assert len(different) == 6
    firsts = [inside(first) > inside(second) for n in range(40) for first, second in pairs("search", n)]
    assert 0.4 < sum(firsts) / len(firsts) < 0.6, "either candidate stands first"


def test_an_unclear_verdict_on_a_random_pair_keeps_the_earlier() -> None:
    for seed in range(5):
        world = World(tagged(), judge=lambda question: "Both are fine.")
        result = run(stage_beam, world, options={"width": 3, "pairs": "random"}, seed=(seed,))
        assert [row.candidate for row in result.trace if row.chosen] == [0, 0, 0, 0]


def test_another_word_for_the_pairs_is_refused() -> None:
    with pytest.raises(ValueError, match="option pairs is 'all': want both_orders or random"):
        run(stage_beam, World(tagged()), options={"pairs": "all"})
    with pytest.raises(ValueError, match="unknown option pairs"):
        run(best_of_n, World(tagged()), options={"pairs": "random"})
    world = World(script(proposed("A.", "A dog runs.")), judge=prefers(lambda a, b: len(a) > len(b)))
    assert run(best_of_n, world, by="judge", options={"pairs": "random"}).text == "A dog runs."
    assert len(world.of(Ask)) == 1


def test_a_policy_without_tags_gives_whole_answers_to_choose_from() -> None:
    world = World(script(proposed("It is red.", "It is blue.", ended=True)), judge=prefers(lambda a, b: "blue" in a))
    result = run(stage_beam, world)
    assert (result.text, result.stop_reason) == ("It is blue.", "untagged")
    assert PURPOSES["answer"] in world.of(Ask)[0].question
    assert conclusion(result.text) == "It is blue."


def test_a_whole_stage_goes_before_one_that_was_cut_off() -> None:
    steps = proposed("<SUMMARY>Plan", "<SUMMARY>Plan.</SUMMARY>"), proposed("<CAPTION>It is")
    result = run(stage_beam, World(script(*steps)))
    assert result.sentences == ["<SUMMARY>Plan.</SUMMARY>", "<CAPTION>It is"]
    assert result.stop_reason == "length"


def test_a_policy_that_ends_between_stages_ends_the_answer() -> None:
    result = run(stage_beam, World(script(proposed("<SUMMARY>Plan.</SUMMARY>"), ending("", ""))))
    assert (result.text, result.stop_reason) == ("<SUMMARY>Plan.</SUMMARY>", "end")
