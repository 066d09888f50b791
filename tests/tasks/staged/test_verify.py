"""The gate: what each of the three lets through, why it refuses the others, and that none is lost."""

from __future__ import annotations

import pytest

from storage import lake
from storage.artifacts import Table
from storage.schema import Answer, Caption, Rollout, Sample, Verdict
from tasks.core.staged.answers import in_stages
from tasks.stage.quarantine import StageInputError
from tasks.staged.verify import verify, verify_by_agreement, verify_by_judge
from tests.support.small_world import samples


def staged(conclusion: str) -> str:
    return in_stages(["I look.", "There is a dog.", "So it is.", conclusion])


TEXTS = [staged("Yes"), staged("No, there is none."), "Yes", staged("Yes")[:-13], "", staged("Yes.")]


def questions() -> list[Sample]:
    return samples(benchmark=True)[: len(TEXTS)]


def captions(texts: list[str] | None = None) -> Table:
    rows = [
        Caption(sample.sample_id, sample.image_id, "p", "swires", text, 4, "cutoff", 1, 1)
        for sample, text in zip(questions(), TEXTS if texts is None else texts, strict=True)
    ]
    return lake.publish(Caption, rows)


def rollouts(of: dict[int, list[str]]) -> Table:
    rows = [
        Rollout(f"{questions()[i].sample_id}-{n}", questions()[i].sample_id, "p", f"t{n}", 0.6, 0.9, 0, text, 1, "stop")
        for i, texts in of.items()
        for n, text in enumerate(texts)
    ]
    return lake.publish(Rollout, rows)


def by_reference(texts: list[str] | None = None, answer: str = "Yes", attempt: int = 0):
    truth = lake.publish(Answer, [Answer(sample.sample_id, answer, "what") for sample in questions()])
    with lake.annotations_allowed():
        return verify.fn(
            captions(texts), lake.publish(Sample, questions()), truth, attempt=attempt
        )  # fmt: skip


def reasons(output) -> list[str]:
    reason_of = {row.sample_id: row.reason for row in lake.read_rows(Verdict, output.verdicts)}
    return [reason_of[sample.sample_id] for sample in questions()]


def test_reference_accepts_right_answers_and_gives_a_reason_for_the_others() -> None:
    output = by_reference()
    assert reasons(output) == ["accepted", "wrong", "not_tagged", "incomplete", "no_answer", "accepted"]
    assert output.counters == {"accepted": 2, "wrong": 1, "not_tagged": 1, "incomplete": 1, "no_answer": 1}
    assert {row.text for row in lake.read_rows(Caption, output.accepted)} == {TEXTS[0], TEXTS[5]}


def test_accepted_and_refused_are_all_questions() -> None:
    output = by_reference(attempt=3)
    accepted = {row.sample_id for row in lake.read_rows(Caption, output.accepted)}
    refused = {row.sample_id for row in lake.read_rows(Sample, output.refused)}
    assert not accepted & refused and accepted | refused == {sample.sample_id for sample in questions()}
    for row in lake.read_rows(Verdict, output.verdicts):
        assert (row.accepted, row.attempt) == (row.sample_id in accepted, 3)
    conclusions = {row.text: row.conclusion for row in lake.read_rows(Verdict, output.verdicts)}
    assert conclusions[TEXTS[1]] == "No, there is none." and conclusions[TEXTS[2]] == ""


def test_a_question_without_an_answer_is_refused_and_tried_again() -> None:
    rows = lake.read_rows(Caption, captions())[1:]
    truth = lake.publish(Answer, [Answer(sample.sample_id, "Yes", "what") for sample in questions()])
    with lake.annotations_allowed():
        output = verify.fn(lake.publish(Caption, rows), lake.publish(Sample, questions()), truth, attempt=0)
    assert output.verdicts.rows == len(questions())
    assert sum(reason == "no_answer" for reason in reasons(output)) >= 1


def test_an_answer_to_an_unknown_question_is_an_error() -> None:
    truth = lake.publish(Answer, [Answer(sample.sample_id, "Yes", "what") for sample in questions()])
    with lake.annotations_allowed(), pytest.raises(StageInputError, match="1 answers belong to none of the 5"):
        verify.fn(captions(), lake.publish(Sample, questions()[1:]), truth, attempt=0)


def test_reference_needs_an_answer_to_every_question() -> None:
    truth = lake.publish(Answer, [Answer(sample.sample_id, "Yes", "what") for sample in questions()[1:]])
    with lake.annotations_allowed(), pytest.raises(StageInputError, match=r"1 questions have no answer.*agreement"):
        verify.fn(captions(), lake.publish(Sample, questions()), truth, attempt=0)


def agreeing(votes: dict[int, list[str]], least: float = 0.5):
    return verify_by_agreement.fn(
        captions([staged("Yes")] * len(TEXTS)), lake.publish(Sample, questions()), rollouts(votes), min_agreement=least,
        attempt=0,
    )  # fmt: skip


def test_agreement_reads_the_policys_own_answers_and_no_annotation() -> None:
    assert not verify_by_agreement.reads_annotations and verify.reads_annotations
    yes, no = staged("yes"), staged("No")
    votes = {0: [yes, yes, no], 1: [no, no, yes], 2: [yes, no, "", "maybe"], 3: ["Yes.", yes], 4: ["", yes, no]}
    output = agreeing(votes)
    assert reasons(output) == ["accepted", "disagrees", "no_majority", "accepted", "no_majority", "no_majority"]
    assert reasons(agreeing(votes, least=0.25))[2] == "accepted"  # the first one wins
    assert reasons(agreeing(votes, least=1.0))[0] == "no_majority"


def test_an_answer_needs_a_judges_valid() -> None:
    rows = [
        Verdict(questions()[0].sample_id, 0, "", "Yes", True, "accepted"),
        Verdict(questions()[1].sample_id, 0, "", "Yes", False, "judge"),
        Verdict(questions()[2].sample_id, 0, "", "Yes", True, "accepted"),
    ]
    output = verify_by_judge.fn(captions(), lake.publish(Sample, questions()), lake.publish(Verdict, rows), attempt=0)
    # The last one's form is right, but it was not judged; the third was judged, but its form is wrong.
    assert reasons(output) == ["accepted", "judge", "not_tagged", "incomplete", "no_answer", "judge"]
