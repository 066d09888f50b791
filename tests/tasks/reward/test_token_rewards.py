"""Token rewards: every object word is scored once, baselines come from annotations or without them, nothing is lost."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from storage import lake
from storage.artifacts import Table
from storage.schema import Annotation, Quarantined, Rollout, TokenScore
from tasks.configs.train import FisaoSettings
from tasks.core.benchmarks.mentions import find_mentions
from tasks.core.metrics import auc
from tasks.data.sample import annotate
from tasks.reward.tokens import (
    TokenRewardsResult,
    TokenScoresResult,
    score_tokens,
    split_token_baselines,
    token_baselines,
)
from tasks.stage.quarantine import StageInputError, TooManyQuarantined
from tasks.stage.shards import Shard
from tests.support.small_world import drawn, rollouts, samples, scorer, source


def scored(answers: Table[Rollout] | None = None, **options: object) -> TokenScoresResult:
    world = drawn()
    return score_tokens.fn(scorer(), world.images, world.samples, answers or rollouts(), **options)


@cache
def words() -> Table[TokenScore]:
    return scored().token_scores


@cache
def true() -> Table[Annotation]:
    return annotate.fn(source("train"), drawn().images).annotations


def measured(
    table: Table[TokenScore] | None = None, annotations: Table[Annotation] | None = None, margin: float = 0
) -> TokenRewardsResult:
    with lake.annotations_allowed():
        return token_baselines.fn(
            FisaoSettings(margin=margin), table or words(), drawn().samples, rollouts(), annotations or true(),
        )  # fmt: skip


def rows_of(table: Table[TokenScore]) -> list[TokenScore]:
    return lake.read_rows(TokenScore, table)


def test_every_object_word_of_every_answer_has_one_row_at_its_position() -> None:
    answers = {answer.rollout_id: answer.text for answer in lake.read_rows(Rollout, rollouts())}
    rows = rows_of(words())
    assert Counter(row.rollout_id for row in rows) == Counter(
        {key: len(find_mentions(text)) for key, text in answers.items() if find_mentions(text)}
    )
    assert all(answers[row.rollout_id][row.start : row.end] == row.word for row in rows)
    assert {row.reward for row in rows} == {None}


def test_shards_give_the_rows_of_the_whole() -> None:
    parts = [row for index in range(3) for row in rows_of(scored(shard=Shard(index=index, of=3)).token_scores)]
    whole = rows_of(words())
    assert [row.score for row in parts] == pytest.approx([row.score for row in whole], abs=1e-6)
    assert [replace(row, score=0.0) for row in parts] == [replace(row, score=0.0) for row in whole]


def test_baselines_are_the_means_of_true_and_hallucinated_words() -> None:
    output = measured()
    with lake.annotations_allowed():
        objects = {row.image_id: set(row.objects) for row in lake.read_rows(Annotation, true())}
    image_of_sample = {sample.sample_id: sample.image_id for sample in samples()}
    image_of = {row.rollout_id: image_of_sample[row.sample_id] for row in lake.read_rows(Rollout, rollouts())}
    right = [row.score for row in rows_of(words()) if row.object in objects[image_of[row.rollout_id]]]
    wrong = [row.score for row in rows_of(words()) if row.object not in objects[image_of[row.rollout_id]]]
    assert output.baselines.mu_right == pytest.approx(sum(right) / len(right))
    assert output.baselines.mu_hallucinated == pytest.approx(sum(wrong) / len(wrong))
    assert (output.n_right, output.n_hallucinated) == (len(right), len(wrong))
    assert output.auc == pytest.approx(auc(np.array(right), np.array(wrong))) and output.auc > 0.7
    for row in rows_of(output.token_scores):
        if row.reward:
            assert (row.reward > 0) == (row.score > output.baselines.mu_right)
            assert (row.reward < 0) == (row.score < output.baselines.mu_hallucinated)


def test_a_margin_rewards_and_punishes_fewer() -> None:
    wide, narrow = measured(margin=0.05), measured()
    assert wide.rewarded < narrow.rewarded
    assert wide.punished < narrow.punished


def test_a_good_scorer_needs_no_annotations() -> None:
    output = split_token_baselines.fn(FisaoSettings(baselines="split"), words())
    assert output.baselines == pytest.approx(measured().baselines, abs=0.05)
    assert output.auc is None
    assert not split_token_baselines.reads_annotations
    assert not score_tokens.reads_annotations


def test_images_without_annotations_are_refused_with_the_way_out() -> None:
    with lake.annotations_allowed():
        three = lake.publish(Annotation, lake.read_rows(Annotation, true())[:3])
    with pytest.raises(StageInputError, match=r"images have no annotations .* finetune\.fisao\.baselines to split"):
        measured(annotations=three)


def test_a_scorer_that_prefers_hallucinated_words_is_refused() -> None:
    turned = lake.publish(TokenScore, [replace(row, score=-row.score) for row in rows_of(words())])
    with pytest.raises(StageInputError, match="can't tell them apart"):
        measured(turned)


def test_answers_without_objects_are_counted_and_none_at_all_is_refused() -> None:
    answers = [replace(answer, text="How nice.") for answer in lake.read_rows(Rollout, rollouts())]
    output = scored(lake.publish(Rollout, answers))
    assert output.counters["answers_without_objects"] == len(answers)
    with pytest.raises(StageInputError, match="no answer names an object of COCO"):
        measured(output.token_scores)


def test_words_that_no_score_was_given_for_are_set_aside_and_too_many_are_refused(monkeypatch) -> None:
    import tasks.reward.tokens as module

    load = module.load_scores

    def failing(share: int):
        def loaded(*arguments):
            scores = load(*arguments)
            whole = scores.score
            scores.score = lambda images, sentences: [
                None if i % share == 0 else score for i, score in enumerate(whole(images, sentences))
            ]
            return scores

        return loaded

    monkeypatch.setattr(module, "load_scores", failing(4))
    output = scored()
    set_aside = lake.read_rows(Quarantined, output.quarantine)
    assert len(set_aside) + len(rows_of(output.token_scores)) == output.counters["words"]
    assert {row.reason for row in set_aside} == {"not_scored"}
    monkeypatch.setattr(module, "load_scores", failing(1))
    with pytest.raises(TooManyQuarantined):
        scored()
