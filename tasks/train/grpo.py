"""Fine-tuning by group-relative policy optimisation: the policy answers anew, and each answer is judged against its group's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from storage import lake
from storage.artifacts import ArtifactRef, StageOutput
from storage.schema import Sample
from tasks.configs.policy import PolicyConfig
from tasks.configs.train import FinetuneConfig
from tasks.core.reward.shaping import shape_scores
from tasks.core.text import split_sentences
from tasks.models.answer_values import SaidAnswer, mean_values, sentence_values
from tasks.models.loading import fresh_policy, load_images
from tasks.models.scorers import load_scores
from tasks.stage.progress import progress
from tasks.stage.runtime import RuntimeConfig
from tasks.stage.stage import StageInputError, fault_point, resume_folder, stage
from tasks.train.publish import publish_tuned, recipe_of

if TYPE_CHECKING:
    from tasks.core.train.grpo import Question, RewardOf


@stage()
def tune_grpo(
    config: FinetuneConfig,
    model: PolicyConfig,
    policy: ArtifactRef,
    images: ArtifactRef,
    samples: ArtifactRef,
    scorer: ArtifactRef,
    *,
    tau: float,
    shaping: str,
    alpha: float,
    value: ArtifactRef | None = None,
    backbone: ArtifactRef | None = None,
    seed: int,
    runtime: RuntimeConfig,
    label: str = "",
) -> StageOutput:
    """Learn from new answers to the samples' prompts. Output: policy (a whole checkpoint). Facts: reward, how far it moved.

    The reward of an answer is the mean of its sentences' scores by `scorer`, shaped with `tau`, `shaping` and `alpha` as the
    run's rewards are; with `config.grpo.reward` value it is the mean of V over its sentences. `config.batch_size` counts
    answers: whole groups of `config.grpo.generations`.
    """
    from tasks.core.train.grpo import Question, Sampling, filled, train_grpo
    from tasks.core.train.trl_trainer import TrainingRun
    from tasks.core.train.weights import steps_of

    grpo, groups = config.grpo, _groups(config)
    sampled = lake.read_rows(Sample, samples)
    pictures = load_images(images, [one.image_id for one in sampled])
    questions = [Question(pictures[one.image_id], one.prompt) for one in sampled]
    counters: Counter[str] = Counter()
    if grpo.reward == "score":
        reward = _scored(scorer, questions, tau, shaping, alpha, runtime, counters)
    else:
        reward = _valued(value, backbone, questions, model, runtime, counters)
    loaded = fresh_policy(model, policy, runtime)
    asked = len(filled(len(questions), groups))
    total = steps_of(asked, groups, config.epochs)
    with progress("tune_grpo", total, unit="steps") as advance:
        seen = 0

        def on_step(done: int, loss: float) -> None:
            nonlocal seen
            advance(done - seen)
            seen = done
            if 2 * done > total:
                fault_point("tune_grpo")

        run = TrainingRun(recipe_of(config, seed), resume_folder(), on_step)
        sampling = Sampling(grpo.generations, grpo.temperature, grpo.max_new_tokens, grpo.beta)
        facts = train_grpo(loaded, questions, reward, run, sampling)
    kept = publish_tuned(loaded, [(one.image, one.prompt) for one in questions[:4]], model, runtime)
    return StageOutput(
        refs={"policy": kept},
        facts=facts,
        counters={**counters, "questions": len(questions), "asked_twice": asked - len(questions)},
    )


def _groups(config: FinetuneConfig) -> int:
    """Groups of answers a step."""
    answers, of = config.batch_size, config.grpo.generations
    if answers % of:
        raise StageInputError(
            f"finetune.batch_size {answers} is no multiple of finetune.grpo.generations {of}: whole groups are learned from; "
            f"--set finetune.batch_size={-(-answers // of) * of}"
        )
    return answers // of


def _scored(
    scorer: ArtifactRef,
    questions: Sequence[Question],
    tau: float,
    shaping: str,
    alpha: float,
    runtime: RuntimeConfig,
    counters: Counter[str],
) -> RewardOf:
    """Mean shaped reward of an answer's scored sentences; None for an answer without one."""
    scores = load_scores(scorer, runtime, counters)
    pictures = {index: one.image for index, one in enumerate(questions)}

    def reward(asked: Sequence[int], answers: Sequence[str]) -> list[float | None]:
        sentences = [[one.text for one in split_sentences(answer)] for answer in answers]
        given = iter(
            scores.score(pictures, [(index, one) for index, of in zip(asked, sentences, strict=True) for one in of])
        )
        counters["answers"] += len(answers)
        found: list[float | None] = []
        for of in sentences:
            known = np.array([score for _ in of if (score := next(given)) is not None], dtype=np.float64)
            found.append(
                float(shape_scores(known, shaping=shaping, margin=tau, alpha=alpha).mean()) if len(known) else None
            )
        counters["unscored"] += found.count(None)
        return found

    return reward


def _valued(
    value: ArtifactRef | None,
    backbone: ArtifactRef | None,
    questions: Sequence[Question],
    model: PolicyConfig,
    runtime: RuntimeConfig,
    counters: Counter[str],
) -> RewardOf:
    """Mean of V over an answer's sentences."""
    if value is None or backbone is None:
        raise StageInputError(
            "finetune.grpo.reward=value rewards answers by a value model: give tune_grpo value and backbone, or reward "
            "them by the scorer: --set finetune.grpo.reward=score"
        )
    read = sentence_values(value, backbone, model, runtime)

    def reward(asked: Sequence[int], answers: Sequence[str]) -> list[float | None]:
        counters["answers"] += len(answers)
        said = [
            SaidAnswer(questions[index].image, questions[index].prompt, answer)
            for index, answer in zip(asked, answers, strict=True)
        ]
        return mean_values(read, said)

    return reward
