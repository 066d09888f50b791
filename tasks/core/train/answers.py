"""Answers as tokens under a policy that learns: their log-probabilities and states, and the same under the reference.

What is read is what is decoded: the prompt as `Policy.inputs` builds it for decoding, then the answer's own token ids, all
padded on the left. Logits are computed at the positions that predict an answer's token and nowhere else.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias, TypeVar

import torch
from PIL import Image

from tasks.core.models.policy import Policy
from tasks.core.models.positions import as_position_ids, prompt_positions
from tasks.core.train.weights import FinetuneError

log = logging.getLogger(__name__)

R = TypeVar("R")
# What processors raise for an image or a text that they can't take.
REFUSALS = (ValueError, TypeError, LookupError, OSError, StopIteration, ArithmeticError, AssertionError)

Picture: TypeAlias = Image.Image | Callable[[], Image.Image]  # decoded, or what decodes it when it is needed


@dataclass(frozen=True)
class Turn:
    """A prompt about an image with its answer, as tokens."""

    image: Picture
    prompt: str
    tokens: tuple[int, ...]  # the end token included, if there is one; at least one token
    given: frozenset[int] = field(default=frozenset(), kw_only=True)  # indices of tokens that are read, not learned


@dataclass(frozen=True)
class Answer(Turn):
    """An answer of the policy with rewards on its tokens."""

    rewards: Mapping[int, float]  # token's index -> reward; every object word's, those of 0 too


class Read(NamedTuple):
    """Answers under the policy as it is, aligned at their end."""

    log_probs: torch.Tensor  # [B, T] of the tokens, at temperature 1, 0 before a short answer; float32
    states: torch.Tensor  # [B, T, D], the last layer's before each of them; float32


def opened(picture: Picture) -> Image.Image:
    """The decoded image."""
    return picture() if callable(picture) else picture


def answer_tokens(policy: Policy, text: str, *, ended: bool = True) -> tuple[int, ...]:
    """An answer's tokens as the policy would decode them; the end token too, if it `ended` there."""
    ids = policy.answer_ids(text)
    return (*ids, policy.end_id) if ended else tuple(ids)


def answer_inputs(policy: Policy, turns: Sequence[Turn]) -> dict[str, Any]:
    """Model inputs [B, L + T] of prompts with their answers; each image is decoded once.

    Raises:
        FinetuneError: the processor returns no pixels.
        Exception: whatever the processor raises for an image or a prompt that it refuses.
    """
    pictures = {id(turn.image): turn.image for turn in turns}
    images = {key: opened(picture) for key, picture in pictures.items()}
    inputs = policy.answered(
        [images[id(turn.image)] for turn in turns], [turn.prompt for turn in turns], [turn.tokens for turn in turns]
    )
    # Most processors call them pixel_values, Video-LLaVA's pixel_values_images.
    if not any(name.startswith("pixel_values") and values.numel() for name, values in inputs.items()):
        raise FinetuneError(
            f"a batch has no pixel_values, only {sorted(inputs)}: the images never reach the model; "
            "check the checkpoint's processor"
        )
    return inputs


def readable(
    policy: Policy, rows: Sequence[R], turns_of: Callable[[R], Sequence[Turn]]
) -> tuple[dict[str, Any] | None, list[R], list[tuple[R, str]]]:
    """Inputs of all turns of those rows that the processor takes, these rows, and the refused ones, each with the reason.

    None if it takes no row.
    """

    def inputs_of(some: Sequence[R]) -> dict[str, Any]:
        return answer_inputs(policy, [turn for row in some for turn in turns_of(row)])

    try:
        return inputs_of(rows), list(rows), []
    except REFUSALS as error:
        refused = [(row, reason) for row in rows if (reason := _refusal(inputs_of, row))]
        if not refused:
            raise  # each alone is taken: a fault of the batch, not of a row
        log.debug("a batch was refused: %s", error)
    names = [id(row) for row, _ in refused]
    kept = [row for row in rows if id(row) not in names]
    return inputs_of(kept) if kept else None, kept, refused


def _refusal(inputs_of: Callable[[Sequence[R]], Any], row: R) -> str:
    """Why the processor refuses a row; empty if it doesn't."""
    try:
        inputs_of([row])
    except REFUSALS as error:
        return f"{type(error).__name__}: {error}"[:200]
    return ""


def read_answers(policy: Policy, answers: Sequence[Turn]) -> Read:
    """Read prompts with answers in one forward, with gradients where they are on; T is the longest answer."""
    inputs = answer_inputs(policy, answers)
    log_probs, states = read_tokens(policy, policy.model, inputs, answers, states=True)
    assert states is not None
    return Read(log_probs, states)


def read_tokens(
    policy: Policy,
    model: Any,
    inputs: Mapping[str, Any],
    turns: Sequence[Turn],
    *,
    temperature: float = 1.0,
    states: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Log-probabilities [B, T] of answers at a temperature, and the states [B, T, D] where requested.

    They are 0 before a short answer, and at the tokens of a turn that are given.

    Args:
        policy: whose inputs they are.
        model: what is called: the policy's model, or what wraps it (adapters, several processes).
        inputs: of `answer_inputs`.
        turns: whose inputs they are, in order.
        temperature: logits are divided by it.
        states: whether the last layer's states before each token are returned.
    """
    longest = max(len(turn.tokens) for turn in turns)
    options: dict[str, Any] = {"output_hidden_states": True} if states else {}
    if "logits_to_keep" in inspect.signature(type(policy.model).forward).parameters:
        options["logits_to_keep"] = longest + 1  # a token is predicted at the position before it
    positions = as_position_ids(prompt_positions(policy.model, inputs))
    out = model(**inputs, position_ids=positions, use_cache=False, **options)
    logits = out.logits[:, -longest - 1 : -1].float()
    # What stands before a short answer is its prompt, whose placeholders may have no output.
    tokens, mask = torch.zeros_like(inputs["input_ids"][:, -longest:]), torch.zeros(logits.shape[:2], dtype=torch.bool)
    for row, turn in enumerate(turns):
        first = longest - len(turn.tokens)
        tokens[row, first:] = torch.tensor(turn.tokens).to(tokens)
        mask[row, first:] = True
        for index in turn.given:
            mask[row, first + index] = False
    logits = logits if temperature == 1 else logits / temperature
    log_probs = logits.log_softmax(dim=-1).gather(2, tokens[..., None])[..., 0]
    log_probs = log_probs.masked_fill(~mask.to(log_probs.device), 0.0)
    return log_probs, out.hidden_states[-1][:, -longest - 1 : -1].float() if states else None


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
