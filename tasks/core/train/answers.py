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
from tasks.core.train.weights import weights_before


@dataclass(frozen=True)
class Answer:
    """What the policy said, as its tokens."""

    image: Image.Image
    prompt: str
    tokens: tuple[int, ...]  # the end token included, if it was said; at least one
    rewards: Mapping[int, float]  # token's index -> reward; every object word's, those of 0 too


class Read(NamedTuple):
    """Answers under the policy as it is, aligned at their end."""

    log_probs: torch.Tensor  # [B, T] of the tokens said, at temperature 1, 0 before a short answer; float32
    states: torch.Tensor  # [B, T, D], the last layer's before each of them; float32


def read_answers(policy: Policy, answers: Sequence[Answer]) -> Read:
    """Read prompts with answers in one forward, with gradients where they are on; T is the longest answer."""
    longest = max(len(one.tokens) for one in answers)
    images, prompts = [one.image for one in answers], [one.prompt for one in answers]
    inputs = policy.answered(images, prompts, [one.tokens for one in answers])
    out = policy.model(
        **inputs,
        position_ids=as_position_ids(prompt_positions(policy.model, inputs)),
        use_cache=False,
        output_hidden_states=True,
        logits_to_keep=longest + 1,  # a token is foretold by the place before it
    )
    logits = out.logits[:, -longest - 1 : -1].float()
    # What stands before a short answer is its prompt, whose placeholders may have no output.
    said, there = torch.zeros_like(inputs["input_ids"][:, -longest:]), torch.zeros(logits.shape[:2], dtype=torch.bool)
    for row, one in enumerate(answers):
        said[row, longest - len(one.tokens) :] = torch.tensor(one.tokens).to(said)
        there[row, longest - len(one.tokens) :] = True
    log_probs = logits.log_softmax(dim=-1).gather(2, said[..., None])[..., 0]
    log_probs = log_probs.masked_fill(~there.to(log_probs.device), 0.0)
    return Read(log_probs, out.hidden_states[-1][:, -longest - 1 : -1].float())


@contextmanager
def as_reference(model: Any, before: Mapping[str, torch.Tensor], train: str) -> Iterator[None]:
    """Let the model be what it was before training for a moment.

    Args:
        model: with adapters, where `train` is lora: they are switched off.
        before: the weights it had, by name; they are put in place of what was learned, where `train` is full.
        train: lora or full.
    """
    if train == "lora":
        with model.disable_adapter():
            yield
        return
    learned = weights_before(model)
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
