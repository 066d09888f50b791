"""The heavy half of stage 3: what a scorer gives every sentence of every rollout, its cosine with the image or another reward.

In a file of its own, so that another reward formula does not run the scorer again. Of several rewards each is scored by itself,
and `combine` adds them: another weight runs none of them again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

from storage import lake
from storage.artifacts import ScorerCheckpoint, Table
from storage.schema import Image, Quarantined, Reward, Rollout, Sample
from tasks.core.models.in_context import score_after
from tasks.core.text import Sentence, split_sentences
from tasks.models.loading import load_images
from tasks.models.scorers import load_scores
from tasks.stage.progress import progress
from tasks.stage.quarantine import check_nothing_lost
from tasks.stage.results import StageResult
from tasks.stage.shards import WHOLE, Shard
from tasks.stage.stage import stage

_ANSWERS = 512  # scored together


@dataclass(frozen=True)
class ScoreResult(StageResult):
    """Scores of sentences, still to be shaped, and answers without a sentence."""

    scored: Table[Reward]
    quarantine: Table[Quarantined]


@stage(sharded_by="rollouts")
def score(
    scorer: ScorerCheckpoint,
    images: Table[Image],
    samples: Table[Sample],
    rollouts: Table[Rollout],
    *,
    shard: Shard = WHOLE,
) -> ScoreResult:
    """Score of every sentence about its image, each image read once."""
    todo = shard.slice(lake.read_rows(Rollout, rollouts))
    image_of = {sample.sample_id: sample.image_id for sample in lake.read_rows(Sample, samples)}
    counters: Counter[str] = Counter()
    scores = load_scores(scorer, counters)
    answers = [(rollout, split_sentences(rollout.text)) for rollout in todo]
    rows: list[Reward] = []
    empty: list[Quarantined] = []
    # All answers about an image are next to one another, so that it is embedded once.
    answers.sort(key=lambda answer: image_of[answer[0].sample_id])
    with progress("score", len(answers), unit="answers") as advance:
        for start in range(0, len(answers), _ANSWERS):
            part = answers[start : start + _ANSWERS]
            pictures = load_images(images, list(dict.fromkeys(image_of[rollout.sample_id] for rollout, _ in part)))
            items = [
                (image_of[rollout.sample_id], rollout.text[: sentence.start], sentence.text)
                for rollout, sentences in part
                for sentence in sentences
            ]
            values = iter(score_after(scores, pictures, items) if items else [])
            for rollout, sentences in part:
                if not sentences:
                    empty.append(Quarantined("score", rollout.rollout_id, "no_sentence", f"answer {rollout.text!r}"))
                rows += _rows(rollout, sentences, list(islice(values, len(sentences))), scores.is_cut, scorer.digest)
            advance(len(part))
            last = image_of[part[-1][0].sample_id]
            for image_id in pictures.keys() - {last}:
                scores.forget(image_id)
    order = {rollout.rollout_id: index for index, rollout in enumerate(todo)}
    rows.sort(key=lambda row: (order[row.rollout_id], row.step))
    empty.sort(key=lambda row: order[row.item_id])
    check_nothing_lost("score", len(todo), len({row.rollout_id for row in rows}), len(empty), 0.5, unit="rollouts")
    return ScoreResult(
        scored=lake.publish(Reward, rows),
        quarantine=lake.publish(Quarantined, empty),
        counters={**counters, "sentences": len(rows), "truncated": sum(row.truncated for row in rows)},
    )


def _rows(
    rollout: Rollout,
    sentences: Sequence[Sentence],
    scores: Sequence[float | None],
    is_cut: Callable[[str], bool],
    scorer: str,
) -> list[Reward]:
    """The rewards of one answer, still to be shaped."""
    return [
        Reward(
            rollout_id=rollout.rollout_id,
            sample_id=rollout.sample_id,
            step=step,
            sentence=sentence.text,
            start=sentence.start,
            end=sentence.end,
            is_last=step + 1 == len(sentences),
            score=score,
            shaped=None,
            scorer=scorer,
            truncated=is_cut(sentence.text),
            reason=None if score is not None else "the reward gave none",
        )
        for step, (sentence, score) in enumerate(zip(sentences, scores, strict=True))
    ]
