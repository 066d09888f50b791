"""Scores and shaped rewards: every sentence with its step and its cosine, then the margin rule over all of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from storage import lake
from storage.artifacts import Table
from storage.schema import Quarantined, Reward, Rollout
from tasks.configs.reward import FixedTau, LabelConfig, OtsuTau, QuantileTau
from tasks.core.text import split_sentences
from tasks.reward.score import ScoreResult, score
from tasks.reward.shape_rewards import shape_rewards
from tasks.stage.gather import gather
from tasks.stage.quarantine import StageInputError, TooManyQuarantined
from tasks.stage.results import to_output
from tasks.stage.shards import Shard
from tests.support.small_world import drawn, rollouts, scored, scorer, shaped


def scores_of(answers: Table[Rollout], **options: object) -> ScoreResult:
    return score.fn(scorer(), drawn().images, drawn().samples, answers, **options)


def with_texts(texts: list[str]) -> Table[Rollout]:
    rows = lake.read_rows(Rollout, rollouts())[: len(texts)]
    return lake.publish(Rollout, [replace(row, text=text) for row, text in zip(rows, texts, strict=True)])


def test_every_sentence_is_a_row_at_its_step() -> None:
    by_rollout: dict[str, list[Reward]] = {}
    for row in lake.read_rows(Reward, scored()):
        by_rollout.setdefault(row.rollout_id, []).append(row)
    for answer in lake.read_rows(Rollout, rollouts()):
        rows = by_rollout[answer.rollout_id]
        assert [row.sentence for row in rows] == [sentence.text for sentence in split_sentences(answer.text)]
        assert [row.step for row in rows] == list(range(len(rows)))
        assert all(answer.text[row.start : row.end] == row.sentence for row in rows)
        assert [row.is_last for row in rows] == [False] * (len(rows) - 1) + [True]
        assert all(-1 <= row.score <= 1 and row.shaped is None and row.scorer == scorer().digest for row in rows)


def test_a_score_belongs_to_the_sentence_and_its_image_wherever_it_stands() -> None:
    texts = ["There is a dog. There is a cat.", "There is a cat."]
    rows = lake.read_rows(Reward, scores_of(with_texts(texts)).scored)
    score_of = {(row.rollout_id, row.sentence): row.score for row in rows}
    first, second = [row.rollout_id for row in lake.read_rows(Rollout, rollouts())[:2]]
    assert score_of[first, "There is a dog."] != score_of[first, "There is a cat."]
    same_image = first.split("-")[0] == second.split("-")[0]
    assert (score_of[first, "There is a cat."] == score_of[second, "There is a cat."]) == same_image


def test_shards_of_scores_are_the_scores() -> None:
    shards = [to_output(scores_of(rollouts(), shard=Shard(index=i, of=4))) for i in range(4)]
    merged = gather.fn(shards)
    assert merged.refs["scored"] == scored()
    assert merged.refs["quarantine"].rows == 0


def test_an_answer_without_a_sentence_is_in_quarantine() -> None:
    output = scores_of(with_texts(["", "There is a dog.", "There is a cat. There is a cup."]))
    (refused,) = lake.read_rows(Quarantined, output.quarantine)
    assert (refused.stage, refused.reason) == ("score", "no_sentence")
    scored_ids = {row.rollout_id for row in lake.read_rows(Reward, output.scored)}
    assert len(scored_ids) == 2
    assert refused.item_id not in scored_ids


def test_a_policy_with_mostly_empty_answers_fails() -> None:
    with pytest.raises(TooManyQuarantined, match="score: 2 of 3 rollouts were refused"):
        scores_of(with_texts(["", " ", "There is a dog."]))


def test_a_sentence_longer_than_the_scorer_reads_is_scored_and_marked() -> None:
    long = "There is a dog" + " and a dog" * 60 + "."
    rows = lake.read_rows(Reward, scores_of(with_texts([f"There is a dog. {long}"])).scored)
    assert [row.truncated for row in rows] == [False, True]
    assert rows[1].score is not None


def test_images_and_texts_are_embedded_once_each() -> None:
    counters = scores_of(rollouts()).counters
    rows = lake.read_rows(Reward, scored())
    assert counters["images_embedded"] == len({row.sample_id for row in rows})
    assert counters["texts_embedded"] == len({row.sentence for row in rows}) < counters["sentences"] == len(rows)


@pytest.mark.parametrize("margin", [QuantileTau(q=0.3), FixedTau(value=0.2), OtsuTau()])
def test_the_margin_is_where_the_profile_sets_it(margin: object) -> None:
    output = shape_rewards.fn(LabelConfig(tau=margin, alpha=2.0), scored())
    rows = lake.read_rows(Reward, output.rewards)
    scores = np.array([row.score for row in rows])
    margin = output.margin
    if isinstance(margin, QuantileTau):
        assert (scores < margin).mean() == pytest.approx(0.3, abs=0.02)
    if isinstance(margin, FixedTau):
        assert margin == 0.2
    if isinstance(margin, OtsuTau):
        assert scores.min() < margin < scores.max()
    assert output.below_margin == pytest.approx((scores < margin).mean())
    for row in rows:
        assert row.shaped == pytest.approx(row.score if row.score >= margin else -2.0 * (margin - row.score))


def test_shaping_changes_nothing_but_the_shaped_score() -> None:
    before, after = lake.read_rows(Reward, scored()), lake.read_rows(Reward, shaped().rewards)
    assert [replace(row, shaped=None) for row in after] == before


def test_a_sentence_without_a_score_stays_without_a_reward() -> None:
    rows = lake.read_rows(Reward, scored())[:5]
    rows[2] = replace(rows[2], score=None, reason="not scored")
    done = lake.read_rows(Reward, shape_rewards.fn(LabelConfig(), lake.publish(Reward, rows)).rewards)
    assert [row.shaped is None for row in done] == [False, False, True, False, False]


def test_no_score_at_all_is_an_error_that_names_the_table() -> None:
    rows = [replace(row, score=None, reason="x") for row in lake.read_rows(Reward, scored())]
    with pytest.raises(StageInputError, match="no sentence has a score"):
        shape_rewards.fn(LabelConfig(), lake.publish(Reward, rows))


def test_what_ending_is_worth_goes_with_the_rewards() -> None:
    assert shaped().end_value == 0
    bare = shape_rewards.fn(LabelConfig(shaping="none", tau=FixedTau(value=0.3)), scored())
    assert bare.end_value == bare.margin == 0.3
