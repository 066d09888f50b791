"""Answers as tokens under a policy that learns: their log-probabilities and states, and the same under the reference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from PIL import Image

from tasks.core.models.policy import Policy
from tasks.core.models.positions import as_position_ids, prompt_positions


@dataclass(frozen=True)
class Answer:
    """An answer of the policy, as its tokens."""

    image: Image.Image
    prompt: str
    tokens: tuple[int, ...]  # the end token included, if there is one; at least one token
    rewards: Mapping[int, float]  # token's index -> reward; every object word's, those of 0 too


class Read(NamedTuple):
    """Answers under the policy as it is, aligned at their end."""

    log_probs: torch.Tensor  # [B, T] of the tokens, at temperature 1, 0 before a short answer; float32
    states: torch.Tensor  # [B, T, D], the last layer's before each of them; float32


def read_answers(policy: Policy, answers: Sequence[Answer]) -> Read:
    """Read prompts with answers in one forward, with gradients where they are on; T is the longest answer."""
    longest = max(len(answer.tokens) for answer in answers)
    images, prompts = [answer.image for answer in answers], [answer.prompt for answer in answers]
    inputs = policy.answered(images, prompts, [answer.tokens for answer in answers])
    out = policy.model(
        **inputs,
        position_ids=as_position_ids(prompt_positions(policy.model, inputs)),
        use_cache=False,
        output_hidden_states=True,
        logits_to_keep=longest + 1,  # a token is predicted at the position before it
    )
    logits = out.logits[:, -longest - 1 : -1].float()
    # What stands before a short answer is its prompt, whose placeholders may have no output.
    tokens, mask = torch.zeros_like(inputs["input_ids"][:, -longest:]), torch.zeros(logits.shape[:2], dtype=torch.bool)
    for row, answer in enumerate(answers):
        tokens[row, longest - len(answer.tokens) :] = torch.tensor(answer.tokens).to(tokens)
        mask[row, longest - len(answer.tokens) :] = True
    log_probs = logits.log_softmax(dim=-1).gather(2, tokens[..., None])[..., 0]
    log_probs = log_probs.masked_fill(~mask.to(log_probs.device), 0.0)
    return Read(log_probs, out.hidden_states[-1][:, -longest - 1 : -1].float())


@contextmanager
def as_reference(model: Any, before: Mapping[str, torch.Tensor], train: str) -> Iterator[None]:
    """Within the context the model is what it was before training.

    Args:
        model: with adapters, where `train` is lora: they are switched off.
        before: the weights that learn as they were, by name; they are put in place of what was learned, where `train` is full.
        train: lora or full.
    """
    if train == "lora":
        with model.disable_adapter():
            yield
        return
    now = dict(model.named_parameters())
    learned = {name: now[name].detach().to("cpu", copy=True) for name in before}
    _load(model, before)
    try:
        yield
    finally:
        _load(model, learned)


@torch.no_grad()
def _load(model: Any, weights: Mapping[str, torch.Tensor]) -> None:
    for name, parameter in model.named_parameters():
        if name in weights:
            parameter.copy_(weights[name])
