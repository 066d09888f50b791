"""PPO over whole answers with a reward on any token: clipped ratio, divergence from the reference in the reward, a critic, GAE.

The reference is the policy as it came: with adapters they are switched off, else the first weights are put back for the one
pass that reads it, so no second network is held. Old log-probabilities are the policy's own at temperature 1, read by teacher
forcing as an iteration begins; answers that were drawn colder, or from a nucleus, are slightly off-policy. The critic is linear
on the last hidden state before a token and starts as the least-squares fit of the first iteration's returns, because the first
advantages are measured against it. Its loss reaches the policy's states, times `value_weight`.

Not TRL's: its PPO takes one score an answer, and no images.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tasks.core.models.policy import Policy
from tasks.core.models.precision import autocast
from tasks.core.seeds import seed_for
from tasks.core.train.advantages import Experience, LeastSquares, generalised_advantages, ppo_losses, whiten
from tasks.core.train.answers import Answer, Read, as_reference, read_answers
from tasks.core.train.leftovers import as_it_was, learning_mode
from tasks.core.train.micro_batches import MicroBatches
from tasks.core.train.resume import Progress, keep_progress, last_progress
from tasks.core.train.weights import Before, FinetuneError, Recipe, adapters, let_learn, settle


@dataclass(frozen=True)
class PpoSettings:
    """PPO's own constants; learning rate, batch and what learns are the recipe's."""

    clip: float  # of the probability ratio
    kl: float  # weight of the divergence from the reference in a token's reward
    gamma: float  # discount a token
    gae_lambda: float
    value_weight: float  # of the critic's loss
    passes: int  # over the answers of an iteration
    iterations: int


def train_ppo(
    policy: Policy,
    answers_of: Callable[[int], Sequence[Answer]],
    recipe: Recipe,
    settings: PpoSettings,
    *,
    work: Path,
    on_step: Callable[[float], None],
) -> dict[str, float]:
    """Train `policy.model` in place (adapters are merged into it), from the last whole iteration under `work` on.

    Args:
        policy: loaded model and processor.
        answers_of: iteration (from 0) -> answers of the policy as it is then.
        recipe: how; `epochs` and `checkpoint_steps` are not used, a resume point is kept after each iteration.
        settings: PPO's.
        work: folder for resume points; the caller removes it.
        on_step: called after every step with the share of the training that is done.

    Returns:
        `reward_first`, `reward_last`: mean reward of an object word in the first and the last iteration's answers;
        `words_first`, `words_last`: such words an answer; `tokens_first`, `tokens_last`: of an answer; over the last pass
        `clip_share` of the tokens, `value_loss`, and `kl`, half the mean squared log ratio to the reference (k2);
        `micro_batch_size` (answers read at once); what `settle` gives.

    Raises:
        FinetuneError: no answers, a loss that is no number, or no weight changed.
    """
    before = let_learn(policy.model, recipe.train)
    with as_it_was(policy):
        learner = _Learner(policy, recipe, settings, before)
        saved = last_progress(work)
        if saved is not None:
            learner.restore(saved)
        history: list[dict[str, float]] = [] if saved is None else saved.history
        for iteration in range(len(history), settings.iterations):
            with autocast(policy.model):
                answers = answers_of(iteration)
            if not answers:
                raise FinetuneError(f"iteration {iteration + 1}: no answers to learn from; see the rollouts table")
            history.append(learner.iterate(iteration, answers, on_step))
            keep_progress(work, learner.progress(history))
    moved = settle(learner.model, before, recipe, _rates(history, recipe, settings))
    start, end = history[0], history[-1]
    facts = {f"{name}_{when}": figures[name] for name in ("reward", "words", "tokens")
             for when, figures in (("first", start), ("last", end))}  # fmt: skip
    facts |= {name: end[name] for name in ("clip_share", "value_loss", "kl")} | moved
    return facts | {"micro_batch_size": float(learner.micro.size)}


class _Learner:
    """The policy, its critic and what trains them."""

    def __init__(self, policy: Policy, recipe: Recipe, settings: PpoSettings, before: Before) -> None:
        self.policy, self.recipe, self.settings, self._before = policy, recipe, settings, before.weights
        self.model: Any = policy.model
        if recipe.train == "lora":
            from peft import get_peft_model

            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed_for("ppo adapters", recipe.seed) % 2**63)
                self.model = get_peft_model(policy.model, adapters(policy.model, recipe.lora_rank))
        # Dropout would move the ratio from 1 before anything was learned.
        self.model.eval()
        if policy.device.type != "cpu":
            policy.model.activation_checkpointing_enable({"use_reentrant": False})
        self.micro = MicroBatches(recipe.micro_batch_size, recipe.batch_size)
        self.critic = torch.nn.Linear(policy.model.get_output_embeddings().weight.shape[1], 1).to(policy.device)
        learned = {f"policy/{n}": p for n, p in self.model.named_parameters() if p.requires_grad}
        self.learned = learned | {f"critic/{n}": p for n, p in self.critic.named_parameters()}
        self.optimizer = torch.optim.AdamW(list(self.learned.values()), lr=recipe.lr, weight_decay=0.0)

    def iterate(self, iteration: int, answers: Sequence[Answer], on_step: Callable[[float], None]) -> dict[str, float]:
        """Learn from one set of answers; the iteration's figures."""
        experience = self._gather(answers, fit_critic=iteration == 0)
        size, passes = self.recipe.batch_size, self.settings.passes
        steps = math.ceil(len(answers) / size) * passes
        done, figures = 0, list[dict[str, float]]()
        learning_mode(self.model)
        for number in range(passes):
            figures = []
            seed = seed_for("ppo batches", self.recipe.seed, iteration, number)
            order = np.random.Generator(np.random.Philox(key=seed)).permutation(len(answers))
            for start in range(0, len(answers), size):
                share = iteration / self.settings.iterations + done / steps / self.settings.iterations
                done += 1
                figures.append(self._step(answers, order[start : start + size], experience, share))
                on_step((iteration + done / steps) / self.settings.iterations)
        self.model.eval()  # new answers are drawn with a cache, which recomputing has none of
        rewards = [reward for answer in answers for reward in answer.rewards.values()]
        return {
            "reward": float(np.mean(rewards)) if rewards else 0.0,
            "words": len(rewards) / len(answers),
            "steps": float(steps),
            "tokens": float(np.mean([len(answer.tokens) for answer in answers])),
            **{name: float(np.mean([step[name] for step in figures])) for name in ("clip_share", "value_loss", "kl")},
        }

    def _step(
        self, answers: Sequence[Answer], picked: np.ndarray, experience: Experience, share: float
    ) -> dict[str, float]:
        """One update on the picked answers; figures of it."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.lr * _schedule(share, self.recipe.warmup_share)
        figures = self.micro.run(lambda: self._accumulate(answers, picked, experience), self.optimizer.zero_grad)
        torch.nn.utils.clip_grad_norm_(self.learned.values(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return figures

    def _accumulate(self, answers: Sequence[Answer], picked: np.ndarray, experience: Experience) -> dict[str, float]:
        """Gradients of the picked answers' mean loss over tokens, read in parts; figures of it."""
        tokens = float(experience.mask[picked].sum())
        figures: dict[str, float] = defaultdict(float)
        for part in self.micro.parts(list(picked)):
            chosen = [answers[index] for index in part]
            longest = max(len(answer.tokens) for answer in chosen)
            rows = Experience(*(each[part, each.shape[1] - longest :].to(self.policy.device) for each in experience))
            with autocast(self.model):
                read = read_answers(self.policy, chosen)
            losses = ppo_losses(read.log_probs, self._values(read.states), rows, clip=self.settings.clip)
            loss = losses.policy + self.settings.value_weight * losses.value
            if not torch.isfinite(loss):
                raise FinetuneError(
                    f"fine-tuning diverged: the loss is {loss.item()}; lower finetune.lr ({self.recipe.lr:g})"
                )
            weight = float(rows.mask.sum()) / tokens
            (loss * weight).backward()
            divergence = ((read.log_probs.detach() - rows.reference).square() * rows.mask).sum() / rows.mask.sum() / 2
            for name, value in {"clip_share": losses.clipped, "value_loss": losses.value, "kl": divergence}.items():
                figures[name] += weight * float(value.detach())
        return dict(figures)

    @torch.no_grad()
    def _gather(self, answers: Sequence[Answer], *, fit_critic: bool) -> Experience:
        """Everything about the answers that the policy's next steps are measured against, on the host."""
        longest = max(len(answer.tokens) for answer in answers)
        mask, rewards = torch.zeros(len(answers), longest), torch.zeros(len(answers), longest)
        for row, answer in enumerate(answers):
            mask[row, longest - len(answer.tokens) :] = 1.0
            for index, reward in answer.rewards.items():
                rewards[row, longest - len(answer.tokens) + index] = reward
        reference, old, values = torch.zeros_like(mask), torch.zeros_like(mask), torch.zeros_like(mask)
        fit = LeastSquares(self.critic.in_features) if fit_critic else None
        with as_reference(self.model, self._before, self.recipe.train):
            for part, read in self._read_all(answers):
                _fill_end(reference, part, read.log_probs)
                if fit is not None:  # the policy is still its own reference, so its returns are those of the rewards
                    width = read.log_probs.shape[1]
                    there = mask[part, longest - width :].bool()
                    returns = generalised_advantages(
                        rewards[part], torch.zeros_like(rewards[part]), mask[part], gamma=self.settings.gamma, lam=1.0
                    ).returns[:, longest - width :]
                    fit.add(read.states.cpu()[there], returns[there])
        if fit is not None:
            weight, bias = fit.solve()
            self.critic.weight.copy_(weight[None])
            self.critic.bias.copy_(bias[None])
        for part, read in self._read_all(answers):
            _fill_end(old, part, read.log_probs)
            _fill_end(values, part, self._values(read.states))
        rewards = rewards - self.settings.kl * (old - reference) * mask
        gains = generalised_advantages(
            rewards, values * mask, mask, gamma=self.settings.gamma, lam=self.settings.gae_lambda
        )
        return Experience(old * mask, reference * mask, whiten(gains.advantages, mask), gains.returns, mask)

    def _read_all(self, answers: Sequence[Answer]) -> Iterator[tuple[slice, Read]]:
        start = 0
        while start < len(answers):
            read = self.micro.run(lambda at=start: self._read(answers[at : at + self.micro.size]), lambda: None)  # type: ignore[misc]
            part = slice(start, start + len(read.log_probs))
            start = part.stop
            yield part, read

    def _read(self, answers: Sequence[Answer]) -> Read:
        with autocast(self.model):
            return read_answers(self.policy, answers)

    def _values(self, states: torch.Tensor) -> torch.Tensor:
        values: torch.Tensor = self.critic(states)[..., 0]
        return values

    def progress(self, history: list[dict[str, float]]) -> Progress:
        """What to save after an iteration."""
        return Progress.of(self.learned, self.optimizer, history)

    def restore(self, saved: Progress) -> None:
        """Go on from what was saved."""
        saved.into(self.learned, self.optimizer)


def _fill_end(into: torch.Tensor, part: slice, values: torch.Tensor) -> None:
    """Put a batch's [B, t] into the last t columns of its rows."""
    into[part, into.shape[1] - values.shape[1] :] = values.float().cpu()


def _rates(history: Sequence[dict[str, float]], recipe: Recipe, settings: PpoSettings) -> list[float]:
    """Learning rate of every step of all iterations."""
    return [
        recipe.lr * _schedule((iteration + done / figures["steps"]) / settings.iterations, recipe.warmup_share)
        for iteration, figures in enumerate(history)
        for done in range(int(figures["steps"]))
    ]


def _schedule(share: float, warmup: float) -> float:
    """Factor of the learning rate when `share` of the training is done: linear rise, then linear decay to 0."""
    # The first step of a warm-up would otherwise learn nothing; a thousandth is little and not nothing.
    return max(share / warmup, 1e-3) if share < warmup else (1 - share) / (1 - warmup)
