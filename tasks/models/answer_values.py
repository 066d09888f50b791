"""The value of whole answers, by a value model of either kind: the mean of V over their sentences."""

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


class PromptedAnswer(NamedTuple):
    """An answer to a prompt about an image."""

    image: PIL.Image.Image
    prompt: str
    text: str


# One V for every sentence of every answer.
SentenceValues: TypeAlias = Callable[[Sequence[PromptedAnswer]], list[list[float]]]


def mean_values(values: SentenceValues, answers: Sequence[PromptedAnswer]) -> list[float | None]:
    """The mean of V over each answer's sentences; None for an answer without one."""
    return [sum(of_answer) / len(of_answer) if of_answer else None for of_answer in values(answers)]


def sentence_values(value: ValueHandle) -> SentenceValues:
    """V of every sentence of answers, by the kind of value model that `value` is.

    A V of image and text reads each sentence, or all up to it, as its spec says; a V of hidden states reads them in its
    backbone, the policy it was trained on, whichever policy wrote the answers.
    """
    return _of_turns(value) if layer_read(value) is None else _of_states(value)


def _of_states(value: ValueHandle) -> SentenceValues:
    import torch

    from tasks.core.models.states import sentence_states

    policy, head = load_policy(value.value_backbone), load_state_value(value)
    batch_size = current_runtime().batch_size

    @torch.inference_mode()
    def values(answers: Sequence[PromptedAnswer]) -> list[list[float]]:
        written = [answer for answer in answers if answer.text.strip()]
        states = sentence_states(
            policy,
            [(answer.image, answer.prompt) for answer in written],
            [answer.text for answer in written],
            layer=head.spec.layer,
            batch_size=batch_size,
        )
        read = iter([head(state.to(policy.device)).tolist() for state in states])
        return [next(read) if answer.text.strip() else [] for answer in answers]

    return values


def _of_turns(value: ValueHandle) -> SentenceValues:
    import torch

    network = load_value(value)
    prefixes = network.spec.state == "prefix"
    rows = 4 * current_runtime().batch_size  # a sentence is short

    @torch.inference_mode()
    def values(answers: Sequence[PromptedAnswer]) -> list[list[float]]:
        turns = [
            (index, text) for index, answer in enumerate(answers) for text in _turns_of(answer.text, prefixes=prefixes)
        ]
        by_answer: list[list[float]] = [[] for _ in answers]
        for start in range(0, len(turns), rows):
            part = turns[start : start + rows]
            read: torch.Tensor = network([answers[index].image for index, _ in part], [text for _, text in part])
            for (index, _), number in zip(part, read.tolist(), strict=True):
                by_answer[index].append(number)
        return by_answer

    return values


def _turns_of(text: str, *, prefixes: bool) -> list[str]:
    """What V reads of an answer, a text a sentence, as it read them in training."""
    sentences = split_sentences(text)
    return [text[: sentence.end].strip() if prefixes else sentence.text for sentence in sentences]
