"""The annotated captions of training images become answers with one reward; V learns from them and isn't judged on them."""

from __future__ import annotations

from functools import cache

import pytest

from storage import lake
from storage.artifacts import Table
from storage.lake import AnnotationsForbidden
from storage.schema import Annotation, Reward, Rollout, Value
from tasks.core.text import split_sentences
from tasks.data.sample import annotate
from tasks.rollout.reference import ReferenceResult, reference_answers
from tasks.stage.quarantine import StageInputError
from tasks.value.train_value import ValueResult, train_value
from tests.support.small_world import VALUE, drawn, policy, rollouts, samples, shaped, source


@cache
def annotated() -> Table[Annotation]:
    """What is truly in the training source's images, all that were drawn."""
    return annotate.fn(source(), drawn().images).annotations


def captions() -> dict[str, list[str]]:
    with lake.annotations_allowed():
        return {row.image_id: row.captions for row in lake.read_rows(Annotation, annotated())}


def reference(annotations: Table[Annotation] | None = None, reward: float = 0.27) -> ReferenceResult:
    with lake.annotations_allowed():  # as the cache does for a stage that may read them
        return reference_answers.fn(drawn().samples, annotations or annotated(), reward=reward, seed=3)


def test_every_caption_of_a_training_image_is_an_answer_and_no_other() -> None:
    training = [sample for sample in samples() if sample.split == "train"]
    assert {sample.split for sample in samples()} == {"train", "val"}
    rows = lake.read_rows(Rollout, reference().rollouts)
    expected = {(sample.sample_id, text) for sample in training for text in captions()[sample.image_id]}
    assert {(row.sample_id, row.text) for row in rows} == expected
    assert len(rows) == sum(len(captions()[sample.image_id]) for sample in training) > len(training)
    for row in rows:
        assert row.decode.startswith("annotated") and row.rollout_id == f"{row.sample_id}-{row.decode}"
        assert (row.policy, row.seed, row.n_tokens, row.finish_reason) == ("annotated", 3, 0, "stop")


def test_every_sentence_has_the_one_reward_and_no_score() -> None:
    output = reference(reward=0.4)
    texts = {row.rollout_id: row.text for row in lake.read_rows(Rollout, output.rollouts)}
    rows: dict[str, list[Reward]] = {}
    for row in lake.read_rows(Reward, output.rewards):
        rows.setdefault(row.rollout_id, []).append(row)
        assert (row.shaped, row.score, row.reason) == (0.4, None, "annotated")
        assert texts[row.rollout_id][row.start : row.end] == row.sentence
    for rollout_id, text in texts.items():
        assert [row.sentence for row in rows[rollout_id]] == [sentence.text for sentence in split_sentences(text)]
        assert [row.is_last for row in rows[rollout_id]] == [False] * (len(rows[rollout_id]) - 1) + [True]


@pytest.mark.parametrize("reads", ["image_and_text", "policy_states"])
def test_a_value_model_learns_from_them_and_is_judged_on_the_policys_answers_only(reads: str) -> None:
    world, more = drawn(), reference()

    def train(rewards: list[Table[Reward]], answers: list[Table[Rollout]]) -> ValueResult:
        config = VALUE.model_copy(update={"reads": reads, "train": "frozen", "epochs": 1})
        return train_value.fn(config, policy(), world.images, world.samples, rewards, rollouts=answers, seed=0)

    own, both = [shaped().rewards], [shaped().rewards, more.rewards]
    alone, together = train(own, [rollouts()]), train(both, [rollouts(), more.rollouts])
    assert together.counters["transitions"] == alone.counters["transitions"] + more.rewards.rows
    judged = [
        {(row.rollout_id, row.step) for row in lake.read_rows(Value, output.values)} for output in (alone, together)
    ]
    assert judged[0] == judged[1]
    assert alone.value != together.value


def test_an_image_without_a_caption_is_counted_and_a_source_without_any_refused() -> None:
    first = next(sample for sample in samples() if sample.split == "train").image_id

    def without(gone: set[str]) -> Table[Annotation]:
        with lake.annotations_allowed():
            rows = lake.read_rows(Annotation, annotated())
            bare = [Annotation(r.image_id, r.objects, [" "], r.boxes) if r.image_id in gone else r for r in rows]
            return lake.publish(Annotation, bare)

    assert reference().counters["without_caption"] == 0
    assert reference(without({first})).counters["without_caption"] == 1
    with pytest.raises(StageInputError, match=r"none of \d+ training images has a reference caption"):
        reference(without({sample.image_id for sample in samples()}))


def test_training_itself_still_can_not_open_annotations(home) -> None:
    world = drawn()
    with pytest.raises(AnnotationsForbidden, match="stage train_value got annotations"):
        train_value(VALUE, policy(), world.images, world.samples, annotated(), seed=0)
    assert reference_answers.reads_annotations
