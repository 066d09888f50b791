"""What a value model of either kind says of whole answers: the mean of V over their sentences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from tasks.core.text import split_sentences
from tasks.models.handles import ValueHandle
from tasks.models.loading import layer_read, load_policy, load_state_value, load_value
from tasks.stage.runtime import current_runtime

if TYPE_CHECKING:
    import PIL.Image
    import torch


class SaidAnswer(NamedTuple):
    """An answer to a prompt about an image."""

    image: PIL.Image.Image
    prompt: str
    text: str


# One V for every sentence of every answer.
SentenceValues: TypeAlias = Callable[[Sequence[SaidAnswer]], list[list[float]]]


def mean_values(values: SentenceValues, answers: Sequence[SaidAnswer]) -> list[float | None]:
    """The mean of V over each answer's sentences; None for an answer without one."""
    return [sum(one) / len(one) if one else None for one in values(answers)]


def sentence_values(value: ValueHandle) -> SentenceValues:
    """V of every sentence of answers, by the kind of value model that `value` is.

    A V of image and text reads each sentence, or all up to it, as its spec says; a V of hidden states reads them in its
    backbone, the policy it was trained on, whichever policy wrote the answers.
    """
    return _of_turns(value) if layer_read(value) is None else _of_states(value)


def _of_states(value: ValueHandle) -> SentenceValues:
    import torch

    from tasks.core.models.states import sentence_states

    policy, head = load_policy(value.backbone), load_state_value(value)
    batch_size = current_runtime().batch_size

    @torch.inference_mode()
    def values(answers: Sequence[SaidAnswer]) -> list[list[float]]:
        spoken = [one for one in answers if one.text.strip()]
        states = sentence_states(
            policy,
            [(one.image, one.prompt) for one in spoken],
            [one.text for one in spoken],
            layer=head.spec.layer,
            batch_size=batch_size,
        )
        read = iter([head(of.to(policy.device)).tolist() for of in states])
        return [next(read) if one.text.strip() else [] for one in answers]

    return values


def _of_turns(value: ValueHandle) -> SentenceValues:
    import torch

    network = load_value(value)
    prefixes = network.spec.state == "prefix"
    rows = 4 * current_runtime().batch_size  # a sentence is short

    @torch.inference_mode()
    def values(answers: Sequence[SaidAnswer]) -> list[list[float]]:
        turns = [(index, text) for index, one in enumerate(answers) for text in _turns_of(one.text, prefixes=prefixes)]
        found: list[list[float]] = [[] for _ in answers]
        for start in range(0, len(turns), rows):
            part = turns[start : start + rows]
            read: torch.Tensor = network([answers[index].image for index, _ in part], [text for _, text in part])
            for (index, _), one in zip(part, read.tolist(), strict=True):
                found[index].append(one)
        return found

    return values


def _turns_of(text: str, *, prefixes: bool) -> list[str]:
    """What V reads of an answer, a text a sentence, as it read them in training."""
    sentences = [one.text for one in split_sentences(text)]
    return [" ".join(sentences[: i + 1]) for i in range(len(sentences))] if prefixes else sentences
