"""Beside stage 3, reference_answers: the training images' own annotated captions, as answers with one fixed reward.

ViMaR learns V from these beside the policy's answers (section 3.2), every sentence worth 0.27. This is where annotations enter
training, so it is a stage of its own that runs only where the profile says so (`value.ground_truth`): `train_value` is given
answers and rewards as ever, and can't open annotations.
"""

from __future__ import annotations

from dataclasses import dataclass

from storage import lake
from storage.artifacts import Table
from storage.schema import Annotation, Reward, Rollout, Sample
from tasks.core.text import split_sentences
from tasks.stage.quarantine import StageInputError
from tasks.stage.results import StageResult
from tasks.stage.stage import stage

DECODE = "annotated"


@dataclass(frozen=True)
class ReferenceResult(StageResult):
    """Annotated captions as answers, and the reward of their sentences."""

    rollouts: Table[Rollout]  # decode annotated, annotated-2 ...; no token was generated
    rewards: Table[Reward]  # without a score, for nothing was scored


@stage(reads_annotations=True)
def reference_answers(
    samples: Table[Sample], annotations: Table[Annotation], *, reward: float, seed: int
) -> ReferenceResult:
    """Every reference caption of a training sample's image as an answer whose sentences are worth `reward`.

    Held-out samples are left out: V is judged on the policy's own answers. Of the annotations only `captions` are read.

    Counters: answers, and training samples without a caption.

    Raises:
        StageInputError: if no training image has a caption.
    """
    captions = {row.image_id: row.captions for row in lake.read_rows(Annotation, annotations)}
    training = [row for row in lake.read_rows(Sample, samples) if row.split == "train"]
    rollouts: list[Rollout] = []
    rewards: list[Reward] = []
    for sample in training:
        texts = [text.strip() for text in captions.get(sample.image_id, []) if text.strip()]
        for number, text in enumerate(texts, start=1):
            answer = _rollout(sample, text, number, seed)
            rollouts.append(answer)
            rewards += _rewards(answer, reward)
    if not rollouts:
        raise StageInputError(
            f"none of {len(training)} training images has a reference caption: value.ground_truth wants a data source with "
            "captions (COCO or the demo); or set value.ground_truth to none"
        )
    bare = len(training) - len({rollout.sample_id for rollout in rollouts})
    return ReferenceResult(
        rollouts=lake.publish(Rollout, rollouts),
        rewards=lake.publish(Reward, rewards),
        counters={"answers": len(rollouts), "without_caption": bare},
    )


def _rollout(sample: Sample, text: str, number: int, seed: int) -> Rollout:
    decode = DECODE if number == 1 else f"{DECODE}-{number}"
    return Rollout(
        rollout_id=f"{sample.sample_id}-{decode}",
        sample_id=sample.sample_id,
        policy=DECODE,
        decode=decode,
        temperature=0.0,
        top_p=1.0,
        seed=seed,
        text=text,
        n_tokens=0,
        finish_reason="stop",
    )


def _rewards(answer: Rollout, reward: float) -> list[Reward]:
    sentences = split_sentences(answer.text)
    return [
        Reward(
            rollout_id=answer.rollout_id,
            sample_id=answer.sample_id,
            step=step,
            sentence=sentence.text,
            start=sentence.start,
            end=sentence.end,
            is_last=step == len(sentences) - 1,
            score=None,
            shaped=reward,
            scorer=DECODE,
            truncated=False,
            reason=DECODE,
        )
        for step, sentence in enumerate(sentences)
    ]
