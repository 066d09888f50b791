"""Fine-tuning by group-relative policy optimisation: new answers of the policy, each judged against its group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from storage import lake
from storage.artifacts import ScorerCheckpoint, Table
from storage.schema import Image, Sample
from tasks.configs.train import GrpoConfig
from tasks.core.reward.shaping import shape_scores
from tasks.core.text import split_sentences
from tasks.models.answer_values import PromptedAnswer, mean_values, sentence_values
from tasks.models.engine import open_engine
from tasks.models.handles import PolicyHandle, ValueHandle
from tasks.models.loading import StoredImages, fresh_policy
from tasks.models.scorers import load_scores
from tasks.stage.quarantine import StageInputError
from tasks.stage.stage import stage
from tasks.train.training import TrainResult, shown_of, train_result, training_run

if TYPE_CHECKING:
    from tasks.core.models.policy import Policy
    from tasks.core.train.drawing import Drawing, Drawn
    from tasks.core.train.grpo import Draw, Question, Request, RewardOf, Sampling


@dataclass(frozen=True)
class ShapedReward:
    """The run's reward: a scorer, and the margin rule that shapes its scores."""

    scorer: ScorerCheckpoint
    margin: float
    shaping: str
    alpha: float


@stage()
def train_grpo(
    config: GrpoConfig,
    policy: PolicyHandle,
    images: Table[Image],
    samples: Table[Sample],
    reward: ShapedReward,
    value: ValueHandle | None = None,
    *,
    seed: int,
) -> TrainResult:
    """Learn from new answers to the samples' prompts. Figures: reward, how far it moved.

    The reward of an answer is the mean of its sentences' scores, shaped as the run's rewards are; with `config.grpo.reward`
    value it is the mean of V over its sentences. `config.batch_size` counts answers: whole groups of `config.grpo.generations`.
    """
    from tasks.core.train.grpo import Question, Sampling, filled
    from tasks.core.train.grpo import train_grpo as run_grpo

    grpo, groups = config.grpo, _groups(config)
    sampled = lake.read_rows(Sample, samples)
    pictures = StoredImages(images, [sample.image_id for sample in sampled])
    questions = [Question(pictures.picture(sample.image_id), sample.prompt) for sample in sampled]
    counters: Counter[str] = Counter()
    scored = grpo.reward == "score"
    reward_of = _scored(reward, questions, counters) if scored else _valued(value, questions, counters)
    loaded = fresh_policy(policy)
    prompts = len(filled(len(questions), groups))
    sampling = Sampling(grpo.generations, grpo.temperature, grpo.max_new_tokens, grpo.beta)
    draw = _draw(loaded, sampled, questions, sampling, seed)
    with training_run("train_grpo", config, seed, prompts, groups) as run:
        figures = run_grpo(loaded, questions, reward_of, draw, run, sampling)
    counters["untrainable"] = int(figures.pop("untrainable"))
    counted = {**counters, "questions": len(questions), "asked_twice": prompts - len(questions)}
    return train_result(config, policy, loaded, shown_of(questions), figures, counted)


def _draw(
    loaded: Policy, samples: Sequence[Sample], questions: Sequence[Question], sampling: Sampling, seed: int
) -> Draw:
    """Draws answers by the engine, from the whole distribution; a draw is named by sample, step, repetition and number."""
    from tasks.core.train.drawing import Drawing, draw_answers

    def drawing(request: Request, step: int) -> Drawing:
        question = questions[request.question]
        return Drawing(
            question.image,
            question.prompt,
            sampling.temperature,
            sampling.max_new_tokens,
            seed=("grpo", seed, step, samples[request.question].sample_id),
            draws=[(request.repetition, number) for number in range(sampling.generations)],
        )

    def draw(requests: Sequence[Request], step: int) -> list[list[Drawn]]:
        # A new engine each time: the policy has changed since the last one.
        return draw_answers(open_engine(loaded, top_p=1.0), [drawing(request, step) for request in requests])

    return draw


def _groups(config: GrpoConfig) -> int:
    """Groups of answers a step."""
    answers, of = config.batch_size, config.grpo.generations
    if answers % of:
        raise StageInputError(
            f"finetune.batch_size {answers} is no multiple of finetune.grpo.generations {of}: whole groups are learned from; "
            f"--set finetune.batch_size={-(-answers // of) * of}"
        )
    return answers // of


def _scored(shaped: ShapedReward, questions: Sequence[Question], counters: Counter[str]) -> RewardOf:
    """Mean shaped reward of an answer's scored sentences; None for an answer without one."""
    from tasks.core.models.in_context import score_after
    from tasks.core.train.answers import opened

    scores = load_scores(shaped.scorer, counters)

    def reward(indices: Sequence[int], answers: Sequence[str]) -> list[float | None]:
        sentences = [split_sentences(answer) for answer in answers]
        pictures = {index: opened(questions[index].image) for index in set(indices)}
        items = [
            (index, answer[: sentence.start], sentence.text)
            for index, answer, of_answer in zip(indices, answers, sentences, strict=True)
            for sentence in of_answer
        ]
        given = iter(score_after(scores, pictures, items))
        counters["answers"] += len(answers)
        rewards: list[float | None] = []
        for of_answer in sentences:
            known = np.array([score for _ in of_answer if (score := next(given)) is not None], dtype=np.float64)
            rewards.append(_mean_shaped(known, shaped) if len(known) else None)
        counters["unscored"] += rewards.count(None)
        return rewards

    return reward


def _mean_shaped(scores: np.ndarray, rule: ShapedReward) -> float:
    return float(shape_scores(scores, shaping=rule.shaping, margin=rule.margin, alpha=rule.alpha).mean())


def _valued(value: ValueHandle | None, questions: Sequence[Question], counters: Counter[str]) -> RewardOf:
    """Mean of V over an answer's sentences."""
    if value is None:
        raise StageInputError(
            "finetune.grpo.reward=value rewards answers by a value model: give train_grpo a value model, or reward "
            "them by the scorer: --set finetune.grpo.reward=score"
        )
    from tasks.core.train.answers import opened

    read = sentence_values(value)

    def reward(indices: Sequence[int], answers: Sequence[str]) -> list[float | None]:
        counters["answers"] += len(answers)
        prompted = [
            PromptedAnswer(opened(questions[index].image), questions[index].prompt, answer)
            for index, answer in zip(indices, answers, strict=True)
        ]
        return mean_values(read, prompted)

    return reward
