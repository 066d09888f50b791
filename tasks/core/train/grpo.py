"""Group-relative policy optimisation with TRL, on images (Shao et al., arXiv 2402.03300).

Every prompt is answered several times by the policy as it stands; an answer's advantage is its reward less the mean of its
group's, over the group's deviation. One step is taken on each batch of answers, so the ratio of new to old probabilities is 1
and nothing is clipped. The loss is averaged over the batch's tokens (DAPO, arXiv 2503.14476): averaged over each answer first,
a token of a long answer would weigh less than one of a short answer.

Two kinds of answers have no reward. An empty answer counts as the worst of its group, so that saying nothing never pays. An
answer that could not be scored (None) has no advantage, and doesn't count in its group's mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from PIL import Image

from tasks.core.models.policy import Policy
from tasks.core.train.trl_trainer import (
    TrainingRun,
    arguments,
    dataset,
    first_and_last,
    history,
    reporter,
    train,
    user_message,
)
from tasks.core.train.weights import FinetuneError, adapters, steps_of

# (indices into the questions, answers, none of them blank) -> rewards, one each; None: this answer can't be scored.
RewardOf: TypeAlias = Callable[[Sequence[int], Sequence[str]], Sequence[float | None]]


@dataclass(frozen=True)
class Question:
    """A prompt about an image."""

    image: Image.Image
    prompt: str


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn, and what holds the policy back."""

    generations: int  # answers a prompt
    temperature: float
    max_new_tokens: int
    beta: float  # weight of the divergence from the policy before training; 0: no reference is read


def train_grpo(
    policy: Policy, questions: Sequence[Question], reward: RewardOf, run: TrainingRun, sampling: Sampling
) -> dict[str, float]:
    """Train `policy.model` in place on its own rewarded answers, from the last checkpoint under `run.work` on.

    Args:
        policy: loaded model and processor.
        questions: at least one.
        reward: what an answer is worth.
        run: how and where; its batch size counts answers and is a multiple of `sampling.generations`.
        sampling: how answers are drawn.

    Returns:
        `steps`, `loss_first`, `loss_last`, `relative_change`, and of the first and the last tenth of the steps: `reward`,
        `reward_std` (within the batch), `length` (tokens an answer), `flat` (share of groups whose rewards are all equal, from
        which nothing is learned), and with a reference `kl` (a token).

    Raises:
        ValueError: a batch size that is no multiple of the group's.
        FinetuneError: if a batch has no pixels, no weight changed, or weights are no longer numbers.
    """
    if run.recipe.batch_size % sampling.generations:
        raise ValueError(
            f"finetune.batch_size {run.recipe.batch_size} is no multiple of finetune.grpo.generations "
            f"{sampling.generations}: whole groups are learned from"
        )
    tokenizer = policy.processor.tokenizer
    side, tokenizer.padding_side = tokenizer.padding_side, "left"  # answers are drawn behind the prompts
    built: list[Any] = []
    try:
        trainer, facts = train(
            policy,
            run,
            build=lambda: _trainer(policy, questions, reward, run, sampling),
            check=built.append,  # there is no batch to look at before answers are drawn: each is looked at then
        )
    except FinetuneError as error:
        if built and all(share == 1 for share in history(built[0], "frac_reward_zero_std")):
            raise FinetuneError(
                "no group of answers had different rewards, so there was nothing to learn: raise "
                f"finetune.grpo.temperature ({sampling.temperature:g}) or finetune.grpo.generations ({sampling.generations})"
            ) from error
        raise
    finally:
        tokenizer.padding_side = side
    logged = {
        "reward": "reward",
        "reward_std": "reward_std",
        "length": "completions/mean_length",
        "flat": "frac_reward_zero_std",
        "kl": "kl",
    }
    for fact, name in logged.items():
        facts |= first_and_last(trainer, name, fact)
    return facts


def filled(count: int, groups: int) -> list[int]:
    """Indices of all `count` questions, with the first ones again until whole steps of `groups` are full.

    TRL's sampler leaves out what does not fill a step; here every question is used.
    """
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


def _trainer(
    policy: Policy, questions: Sequence[Question], reward: RewardOf, run: TrainingRun, sampling: Sampling
) -> Any:
    """TRL's trainer over the questions."""
    from datasets import Value
    from trl import GRPOConfig, GRPOTrainer

    class Trainer(GRPOTrainer):
        """TRL's, with a check of every batch it learns from."""

        def compute_loss(self, model: Any, inputs: Any, *more: Any, **options: Any) -> Any:
            _check_batch(inputs)
            return super().compute_loss(model, inputs, *more, **options)

        def _get_per_token_logps_and_entropies(self, *given: Any, batch_num_images: Any = None, **options: Any) -> Any:
            """Without what LLaVA-OneVision's processor adds: TRL hands it to the reference, but knows no such argument."""
            return super()._get_per_token_logps_and_entropies(*given, **options)

    recipe = run.recipe
    groups = recipe.batch_size // sampling.generations
    rows = [
        {"images": [questions[index].image], "prompt": user_message(questions[index].prompt), "question": index}
        for index in filled(len(questions), groups)
    ]
    plain = arguments(policy, run, steps_of(len(rows), groups, recipe.epochs))
    return Trainer(
        model=policy.model,
        reward_funcs=_reward_function(reward, sampling.generations),
        args=GRPOConfig(
            **plain,
            num_generations=sampling.generations,
            temperature=sampling.temperature,
            max_completion_length=sampling.max_new_tokens,
            beta=sampling.beta,
            loss_type="dapo",
            scale_rewards="group",
            disable_dropout=True,
            remove_unused_columns=False,  # the question's index is for the reward
        ),
        train_dataset=dataset(rows, "prompt", question=Value("int64")),
        processing_class=policy.processor,
        peft_config=adapters(policy.model, recipe.lora_rank) if recipe.train == "lora" else None,
        callbacks=[reporter(run.on_step)],
    )


def _reward_function(reward: RewardOf, generations: int) -> Callable[..., list[float | None]]:
    """As TRL calls it: a batch of whole groups, each answer as a conversation."""

    def rewards(completions: Sequence[Any], question: Sequence[int], **_: Any) -> list[float | None]:
        texts = [str(messages[0]["content"]) for messages in completions]
        answered = [i for i, text in enumerate(texts) if text.strip()]
        given = reward([question[i] for i in answered], [texts[i] for i in answered]) if answered else []
        rewarded: list[float | None] = [None] * len(texts)
        for i, value in zip(answered, given, strict=True):
            rewarded[i] = value
        return rewards_of_groups(texts, rewarded, generations)

    return rewards


def _check_batch(inputs: Any) -> None:
    """Refuse a batch without pixels or with an answer without tokens."""
    if inputs.get("pixel_values") is None or not inputs["pixel_values"].numel():
        raise FinetuneError(
            f"a batch has no pixel_values, only {sorted(inputs)}: the images never reach the model; "
            "check the checkpoint's processor"
        )
    if not bool((inputs["completion_mask"].sum(dim=1) > 0).all()):
        raise FinetuneError("an answer without a token: check the checkpoint's generation config")
