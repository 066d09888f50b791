"""Group-relative policy optimisation, on images (Shao et al., arXiv 2402.03300).

Every prompt is answered several times by the policy as it stands; an answer's advantage is its reward less the mean of its
group's, over the group's deviation. The tokens that were drawn are the tokens that are learned. One step is taken on each batch
of answers, so the ratio of new to old probabilities is 1 and nothing is clipped. The loss is averaged over the batch's tokens
(DAPO, arXiv 2503.14476): averaged over each answer first, a token of a long answer would weigh less than one of a short answer.

Two kinds of answers have no reward. An empty answer counts as the worst of its group, so that saying nothing never pays. An
answer that could not be scored (None) has no advantage, and doesn't count in its group's mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch

from tasks.core.models.policy import Policy
from tasks.core.train.answers import REFUSALS, Picture, Turn, opened
from tasks.core.train.drawing import Drawn
from tasks.core.train.step_trainer import StepTrainer, train
from tasks.core.train.steps import Objective, Row, TrainingRun, first_and_last, history
from tasks.core.train.weights import FinetuneError

# (indices into the questions, answers, none of them blank) -> rewards, one each; None: this answer can't be scored.
RewardOf: TypeAlias = Callable[[Sequence[int], Sequence[str]], Sequence[float | None]]

_SMALL = 1e-4  # added to a group's deviation


@dataclass(frozen=True)
class Question:
    """A prompt about an image."""

    image: Picture
    prompt: str


class Request(NamedTuple):
    """A question to be answered; the same one may be put several times in one step."""

    question: int  # its index
    repetition: int  # how often it was put before in this pass


Put: TypeAlias = tuple[int, Request]  # with the trainer's item

# (requests, steps done) -> for each request as many answers as `Sampling.generations`, at its temperature, from the whole
# distribution, by the policy as it stands.
Draw: TypeAlias = Callable[[Sequence[Request], int], Sequence[Sequence[Drawn]]]


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn, and what holds the policy back."""

    generations: int  # answers a prompt
    temperature: float
    max_new_tokens: int
    beta: float  # weight of the divergence from the policy before training; 0: no reference is read


def train_grpo(
    policy: Policy, questions: Sequence[Question], reward: RewardOf, draw: Draw, run: TrainingRun, sampling: Sampling
) -> dict[str, float]:
    """Train `policy.model` in place on its own rewarded answers, from the last checkpoint under `run.work` on.

    Args:
        policy: loaded model and processor.
        questions: at least one.
        reward: what an answer is worth.
        draw: draws answers of `policy` as it stands.
        run: how and where; its batch size counts answers and is a multiple of `sampling.generations`.
        sampling: how answers are drawn.

    Returns:
        `steps`, `loss_first`, `loss_last`, `relative_change`, `untrainable` (questions that the processor refuses),
        `micro_batch_size`, and of the first and the last tenth of the steps: `reward`, `reward_std` (within the batch),
        `length` (tokens an answer), `flat` (share of groups whose rewards are all equal, from which nothing is learned), and
        with a reference `kl` (a token).

    Raises:
        ValueError: a batch size that is no multiple of the group's.
        FinetuneError: if no question can be read, no weight changed, weights are no longer numbers, or memory runs out.
    """
    if run.recipe.batch_size % sampling.generations:
        raise ValueError(
            f"finetune.batch_size {run.recipe.batch_size} is no multiple of finetune.grpo.generations "
            f"{sampling.generations}: whole groups are learned from"
        )
    groups = run.recipe.batch_size // sampling.generations
    put = filled(len(questions), groups)
    trainers: list[StepTrainer] = []

    def request_of(item: int) -> Request:
        return Request(put[item], item // len(questions))

    def rows(items: Sequence[int], trainer: StepTrainer) -> list[Row]:
        trainers[:] = [trainer]
        known, drawn = _drawn(policy, questions, draw, [(item, request_of(item)) for item in items], trainer)
        made = _rows(policy, questions, reward, list(zip(known, drawn, strict=True)), trainer)
        return trainer.with_reference(made) if sampling.beta and made else made

    def loss(log_probs: torch.Tensor, part: Sequence[Row]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return group_loss(log_probs, part, sampling.beta)

    try:
        trainer, facts = train(policy, run, Objective(rows, loss, len(put), groups, sampling.temperature))
    except FinetuneError as error:
        if trainers and all(share == 1 for share in history(trainers[0], "flat") or [0]):
            raise FinetuneError(
                "no group of answers had different rewards, so there was nothing to learn: raise "
                f"finetune.grpo.temperature ({sampling.temperature:g}) or finetune.grpo.generations ({sampling.generations})"
            ) from error
        raise
    return facts | first_and_last(trainer, "reward", "reward_std", "length", "flat", "kl")


def filled(count: int, groups: int) -> list[int]:
    """Indices of all `count` questions, with the first ones again until whole steps of `groups` are full."""
    return [index % count for index in range(-(-count // groups) * groups)]


def rewards_of_groups(texts: Sequence[str], rewarded: Sequence[float | None], generations: int) -> list[float | None]:
    """Rewards with those of blank answers filled in: the least of the group, 0 where it has none.

    Args:
        texts: answers, group by group.
        rewarded: their rewards; None where blank, or where there is none.
        generations: answers a group.
    """
    filled_in: list[float | None] = []
    for start in range(0, len(texts), generations):
        group = range(start, start + generations)
        least = min((reward for i in group if (reward := rewarded[i]) is not None), default=0.0)
        filled_in += [rewarded[i] if texts[i].strip() else least for i in group]
    return filled_in


def advantages_of(rewards: Sequence[float | None]) -> list[float]:
    """A group's rewards less their mean over their deviation (of a sample); 0 for an answer without a reward."""
    known = [reward for reward in rewards if reward is not None]
    if len(known) < 2:
        return [0.0] * len(rewards)
    mean = math.fsum(known) / len(known)
    deviation = (math.fsum((reward - mean) ** 2 for reward in known) / (len(known) - 1)) ** 0.5
    return [0.0 if reward is None else (reward - mean) / (deviation + _SMALL) for reward in rewards]


def group_loss(
    log_probs: torch.Tensor, rows: Sequence[Row], beta: float
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Summed over the tokens [B, T] of drawn answers; the divergence is estimated by k3 (Schulman, 2020)."""
    width = log_probs.shape[1]
    gain = torch.zeros_like(log_probs)
    for index, row in enumerate(rows):
        gain[index, width - len(row.turns[0].tokens) :] = row.advantage
    # The ratio to the probabilities that the answers were drawn with: 1, with a gradient.
    loss = -(gain * (log_probs - log_probs.detach()).exp()).sum()
    if not beta:
        return loss, {}
    reference = torch.zeros_like(log_probs)
    for index, row in enumerate(rows):
        reference[index, width - len(row.turns[0].tokens) :] = row.reference[0].to(log_probs)
    ratio = reference - log_probs  # 0 before short answers
    divergence = (ratio.exp() - ratio - 1).sum()
    return loss + beta * divergence, {"kl": divergence}


def _drawn(
    policy: Policy, questions: Sequence[Question], draw: Draw, items: Sequence[Put], trainer: StepTrainer
) -> tuple[list[Put], Sequence[Sequence[Drawn]]]:
    """The questions that the processor takes, and answers to each of them."""
    try:
        return list(items), draw([request for _, request in items], trainer.step)
    except REFUSALS:
        known = [put for put in items if _is_read(policy, questions[put[1].question], put[0], trainer)]
        if len(known) == len(items):
            raise  # each is taken: a fault of the drawing
    return known, draw([request for _, request in known], trainer.step) if known else []


def _is_read(policy: Policy, question: Question, item: int, trainer: StepTrainer) -> bool:
    return trainer.readable(item, lambda: policy.inputs([opened(question.image)], [question.prompt]))


def _rows(
    policy: Policy,
    questions: Sequence[Question],
    reward: RewardOf,
    groups: Sequence[tuple[Put, Sequence[Drawn]]],
    trainer: StepTrainer,
) -> list[Row]:
    """Drawn answers with their advantages; figures of them are noted."""
    flat = [(item, request.question, answer) for (item, request), answers in groups for answer in answers]
    if not flat:
        return []
    texts = [answer.text for _, _, answer in flat]
    written = [i for i, text in enumerate(texts) if text.strip()]
    given = reward([flat[i][1] for i in written], [texts[i] for i in written]) if written else []
    rewarded: list[float | None] = [None] * len(texts)
    for i, value in zip(written, given, strict=True):
        rewarded[i] = value
    size = len(groups[0][1])
    rewards = rewards_of_groups(texts, rewarded, size)
    of_groups = [rewards[start : start + size] for start in range(0, len(rewards), size)]
    advantages = [advantage for group in of_groups for advantage in advantages_of(group)]
    rows = []
    for (item, question, answer), advantage in zip(flat, advantages, strict=True):
        tokens = (*answer.tokens, policy.end_id) if answer.ended else answer.tokens
        if tokens:
            turn = Turn(questions[question].image, questions[question].prompt, tokens)
            rows.append(Row(item, (turn,), weight=len(tokens), advantage=advantage))
    known = torch.tensor([value for value in rewards if value is not None], dtype=torch.float64)
    trainer.note(
        length=sum(len(row.turns[0].tokens) for row in rows) / len(flat),
        flat=sum(len({value for value in group if value is not None}) < 2 for group in of_groups) / len(of_groups),
    )
    if len(known):
        trainer.note(reward=float(known.mean()), reward_std=float(known.std(correction=int(len(known) > 1))))
    return rows
