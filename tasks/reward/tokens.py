"""Stage 3 of FiSAO: a score for every object word of every rollout, baselines of right and hallucinated words, rewards.

With `finetune.fisao.rewards: sentences` all of this is of sentences that name objects, in the same tables.

Three stages: scoring uses the scorer and reads no annotation; the baselines are measured on annotations as in the paper, or
on a split of the scores into two groups. Only two means and a deviation go from annotations into a reward.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal

import numpy as np

from storage import lake
from storage.artifacts import ScorerCheckpoint, Table
from storage.schema import Annotation, Image, Quarantined, Rollout, Sample, TokenScore
from tasks.configs.train import FisaoSettings
from tasks.core.benchmarks.chair import true_objects
from tasks.core.metrics import auc
from tasks.core.reward.object_words import (
    BaselineError,
    Baselines,
    measured_baselines,
    split_baselines,
    units_of,
    word_rewards,
)
from tasks.models.loading import load_images
from tasks.models.scorers import load_scores
from tasks.stage.progress import progress
from tasks.stage.quarantine import StageInputError, check_nothing_lost
from tasks.stage.results import StageResult
from tasks.stage.shards import WHOLE, Shard
from tasks.stage.stage import stage

SEPARATOR = ", "  # between the objects of a sentence
_ANSWERS = 512  # scored together


@dataclass(frozen=True)
class TokenScoresResult(StageResult):
    """Scores of object words, still to be rewarded, and words without one."""

    token_scores: Table[TokenScore]
    quarantine: Table[Quarantined]


@dataclass(frozen=True)
class TokenRewardsResult(StageResult):
    """Rewards of object words, and what they are measured against."""

    token_scores: Table[TokenScore]
    baselines: Baselines
    n_right: int
    n_hallucinated: int
    rewarded: float  # share of words above their baseline
    punished: float
    auc: float | None = None  # right against hallucinated words; None without annotations


@stage(sharded_by="rollouts")
def score_tokens(
    scorer: ScorerCheckpoint,
    images: Table[Image],
    samples: Table[Sample],
    rollouts: Table[Rollout],
    *,
    per: Literal["tokens", "sentences"] = "tokens",
    shard: Shard = WHOLE,
) -> TokenScoresResult:
    """Cosine of image and object for every object word, or of image and sentence for every sentence that names objects."""
    todo = shard.slice(lake.read_rows(Rollout, rollouts))
    image_of = {sample.sample_id: sample.image_id for sample in lake.read_rows(Sample, samples)}
    counters: Counter[str] = Counter()
    scores = load_scores(scorer, counters)
    rows: list[TokenScore] = []
    unscored: list[Quarantined] = []
    mentioned = [(rollout, units_of(rollout.text, per)) for rollout in todo]
    # All answers about an image are next to one another, so that it is embedded once.
    mentioned.sort(key=lambda answer: image_of[answer[0].sample_id])
    with progress("score_tokens", len(mentioned), unit="answers") as advance:
        for start in range(0, len(mentioned), _ANSWERS):
            part = [(rollout, word) for rollout, words in mentioned[start : start + _ANSWERS] for word in words]
            phrases = [(image_of[rollout.sample_id], word.phrase) for rollout, word in part]
            ids = list(dict.fromkeys(image_id for image_id, _ in phrases))
            values = scores.score(load_images(images, ids), phrases) if phrases else []
            for (rollout, word), value in zip(part, values, strict=True):
                if value is None:
                    where = f"{rollout.rollout_id}:{word.start}"
                    unscored.append(Quarantined("score_tokens", where, "not_scored", f"{word.text!r}: no score"))
                else:
                    named = SEPARATOR.join(word.objects)
                    rows.append(TokenScore(rollout.rollout_id, word.start, word.end, word.text, named, value, None))
            advance(len(mentioned[start : start + _ANSWERS]))
            for image_id in ids[:-1]:
                scores.forget(image_id)
    order = {rollout.rollout_id: index for index, rollout in enumerate(todo)}
    rows.sort(key=lambda row: (order[row.rollout_id], row.start))
    words = sum(len(mentions) for _, mentions in mentioned)
    check_nothing_lost("score_tokens", words, len(rows), len(unscored), 0.5, unit="words")
    return TokenScoresResult(
        token_scores=lake.publish(TokenScore, rows),
        quarantine=lake.publish(Quarantined, unscored),
        counters={
            **counters,
            "words": words,
            "answers_without_objects": sum(not mentions for _, mentions in mentioned),
        },
    )


@stage(reads_annotations=True)
def token_baselines(
    config: FisaoSettings,
    token_scores: Table[TokenScore],
    samples: Table[Sample],
    rollouts: Table[Rollout],
    annotations: Table[Annotation],
) -> TokenRewardsResult:
    """Baselines by CHAIR on the round's own rollouts, as the paper's.

    Raises:
        StageInputError: an image without annotations, or scores that don't separate right words from hallucinated ones.
    """
    truth = {row.image_id: true_objects(row.objects, row.captions) for row in lake.read_rows(Annotation, annotations)}
    image_of_sample = {sample.sample_id: sample.image_id for sample in lake.read_rows(Sample, samples)}
    image_of = {rollout.rollout_id: image_of_sample[rollout.sample_id] for rollout in lake.read_rows(Rollout, rollouts)}
    rows = _some_words(token_scores)
    missing = {image_of[row.rollout_id] for row in rows} - truth.keys()
    if missing:
        raise StageInputError(
            f"{len(missing)} images have no annotations ({sorted(missing)[:3]} ...): right words can't be separated from "
            "hallucinated ones; set finetune.fisao.baselines to split, or read images whose source has annotations"
        )
    scores = np.array([row.score for row in rows])
    right = np.array([truth[image_of[row.rollout_id]].issuperset(objects_of(row)) for row in rows])
    try:
        baselines = measured_baselines(scores, right)
    except BaselineError as error:
        raise StageInputError(str(error)) from None
    return _rewarded(rows, baselines, right, config.margin, auc(scores[right], scores[~right]))


@stage()
def split_token_baselines(config: FisaoSettings, token_scores: Table[TokenScore]) -> TokenRewardsResult:
    """Baselines at the best threshold between two groups of scores, for images without annotations; no AUC.

    Raises:
        StageInputError: scores without spread.
    """
    rows = _some_words(token_scores)
    try:
        baselines, upper = split_baselines(np.array([row.score for row in rows]))
    except BaselineError as error:
        raise StageInputError(str(error)) from None
    return _rewarded(rows, baselines, upper, config.margin, None)


def objects_of(row: TokenScore) -> tuple[str, ...]:
    """What a word or a sentence names."""
    return tuple(row.object.split(SEPARATOR))


def _some_words(token_scores: Table[TokenScore]) -> list[TokenScore]:
    rows = lake.read_rows(TokenScore, token_scores)
    if not rows:
        raise StageInputError("no answer names an object of COCO: nothing to reward; look at the rollouts table")
    return rows


def _rewarded(
    rows: Sequence[TokenScore], baselines: Baselines, right: np.ndarray, margin: float, right_over_wrong: float | None
) -> TokenRewardsResult:
    """The rows with their rewards, and what they are measured against."""
    done = list(_with_rewards(rows, baselines, margin))
    rewards = np.array([row.reward for row in done])
    return TokenRewardsResult(
        token_scores=lake.publish(TokenScore, done),
        baselines=baselines,
        n_right=int(right.sum()),
        n_hallucinated=int((~right).sum()),
        rewarded=float((rewards > 0).mean()),
        punished=float((rewards < 0).mean()),
        auc=right_over_wrong,
    )


def _with_rewards(rows: Sequence[TokenScore], baselines: Baselines, margin: float) -> Iterator[TokenScore]:
    for _, group in groupby(rows, key=lambda row: row.rollout_id):
        answer = list(group)
        rewards = word_rewards([*map(objects_of, answer)], [row.score for row in answer], baselines, margin=margin)
        yield from (replace(row, reward=reward) for row, reward in zip(answer, rewards, strict=True))
