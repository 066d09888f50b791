"""Pairs of next sentences from a trace made by hand: the same answer before both, the kept sentence first."""

from __future__ import annotations

import pytest

from storage.schema import SearchStep
from tasks.core.reward.verdicts import Verdict
from tasks.core.train.sentence_pairs import NotSentenceBySentence, pairs_of, trace_steps

DOG, CAT, CAR = "There is a dog.", "There is a cat.", "There is a car."
CAPTION = f"{DOG}\n{CAT}"


def candidate(
    step: int, index: int, text: str, *, chosen: bool = False, temperature: float | None = None
) -> SearchStep:
    cold = 0.2 * index if temperature is None else temperature
    return SearchStep("s", "clip_prm", step, index, cold, text, 0.2, 0.2, None, chosen, not text, None)


TRACE = [
    candidate(0, 0, CAR),
    candidate(0, 1, DOG, chosen=True),
    candidate(0, 2, CAT),
    candidate(0, 3, CAT),
    candidate(1, 0, ""),  # the end
    candidate(1, 1, DOG),  # has been written
    candidate(1, 2, CAT, chosen=True),
    candidate(1, 3, CAR),
    candidate(2, 0, CAR),
    candidate(2, 1, "I see a bus."),
]
VERDICTS = {DOG: Verdict.TRUE, CAT: Verdict.TRUE, CAR: Verdict.HALLUCINATED, "I see a bus.": Verdict.UNCERTAIN}


def verdict(row: SearchStep) -> Verdict:
    return VERDICTS[row.text]


def test_steps_hold_the_answer_so_far_and_each_new_sentence_once() -> None:
    first, second, last = trace_steps(CAPTION, list(reversed(TRACE)))
    assert [(s.prefix, s.space, s.step) for s in (first, second, last)] == [
        ("", "", 0),
        (DOG, "\n", 1),
        (CAPTION, " ", 2),
    ]
    assert [[row.candidate for row in s.candidates] for s in (first, second, last)] == [[0, 1, 2], [2, 3], [0, 1]]


def test_the_kept_sentence_is_paired_with_the_coldest_hallucinated_one() -> None:
    first, second, last = trace_steps(CAPTION, TRACE)
    assert [(p.chosen.text, p.rejected.text) for p in pairs_of(first, verdict, most=1)] == [(DOG, CAR)]
    assert [(p.chosen.text, p.rejected.text, p.step.prefix) for p in pairs_of(second, verdict, most=1)] == [
        (CAT, CAR, DOG)
    ]
    assert pairs_of(last, verdict, most=1) == [], "no candidate of the last step is true"


def test_a_step_gives_as_many_pairs_as_it_may_and_uses_no_candidate_twice() -> None:
    texts = ["a", "b", "c", "d", "e"]
    rows = [candidate(0, i, text, temperature=1.0 - 0.2 * i, chosen=text == "a") for i, text in enumerate(texts)]
    (step,) = trace_steps("a", rows)
    called = dict(
        zip(texts, [Verdict.TRUE, Verdict.HALLUCINATED, Verdict.TRUE, Verdict.HALLUCINATED, Verdict.TRUE], strict=True)
    )

    def paired(most: int) -> list[str]:
        return [p.chosen.text + p.rejected.text for p in pairs_of(step, lambda row: called[row.text], most=most)]

    assert paired(1) == ["ad"]  # a was kept; d is colder than b
    assert paired(2) == ["ad", "eb"]
    assert paired(5) == ["ad", "eb"]


def test_the_repeat_of_a_sentence_within_a_caption_is_placed_where_it_stands() -> None:
    rows = [candidate(0, 0, DOG, chosen=True), candidate(1, 0, CAT, chosen=True), candidate(2, 0, DOG, chosen=True)]
    steps = list(trace_steps(f"{DOG} {CAT} {DOG}", rows))
    assert [step.prefix for step in steps] == ["", DOG, f"{DOG} {CAT}"]
    assert steps[2].candidates == (), "it has been written"


@pytest.mark.parametrize(
    ("caption", "rows"),
    [
        (f"{DOG} {CAT}", [candidate(0, 0, CAT, chosen=True)]),  # not its beginning
        (DOG, [candidate(0, 0, DOG, chosen=True), candidate(0, 1, CAT, chosen=True)]),  # two of a step
        (f"{DOG} {CAT}", [candidate(0, 0, DOG, chosen=True)]),  # written without a step
    ],
)
def test_a_trace_that_is_not_its_captions_is_refused(caption: str, rows: list[SearchStep]) -> None:
    with pytest.raises(NotSentenceBySentence, match="strategy clip_prm"):
        list(trace_steps(caption, rows))
