"""The policy's own hidden states at the ends of an answer's sentences: what a value head reads without a second network.

A search has these states anyway, for it decodes the sentences. To train on answers that were written before, they are read
again: prompt and answer in one forward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from PIL import Image

from tasks.core.models.policy import Policy
from tasks.core.text import fewest_tokens, split_sentences


@torch.inference_mode()
def sentence_states(
    policy: Policy,
    turns: Sequence[tuple[Image.Image | Callable[[], Image.Image], str]],
    answers: Sequence[str | Sequence[int]],
    *,
    layer: int,
    batch_size: int,
    after_batch: Callable[[int, int], None] = lambda answers, tokens: None,
) -> list[torch.Tensor]:
    """The hidden state at the last token of every sentence, one float32 [sentences, D] an answer, on the CPU.

    Args:
        policy: what reads.
        turns: the image, or what decodes it when it is needed, and the prompt of each answer.
        answers: texts, or their token ids without an end token.
        layer: hidden layer from the end; -1 is the last one after the final norm, what the language head reads.
        batch_size: answers a forward.
        after_batch: called after every forward with how many answers and how many tokens it read.

    Raises:
        ValueError: not one turn an answer.
    """
    if len(turns) != len(answers):
        raise ValueError(f"{len(turns)} turns for {len(answers)} answers: want one each")
    states: list[torch.Tensor] = []
    for start in range(0, len(answers), batch_size):
        part = slice(start, start + batch_size)
        ids = [_token_ids(policy, answer) for answer in answers[part]]
        images = [image() if callable(image) else image for image, _ in turns[part]]
        prompts = [prompt for _, prompt in turns[part]]
        inputs = policy.answered(images, prompts, ids)
        hidden = policy.hidden(inputs, layer)
        for answer, tokens, row in zip(answers[part], ids, hidden, strict=True):
            ends = sentence_ends(policy, tokens, answer if isinstance(answer, str) else None)
            before = len(row) - len(tokens)
            states.append(row[[before + end - 1 for end in ends]].float().cpu())
        after_batch(len(ids), int(inputs["attention_mask"].sum()))
    return states


def sentence_ends(policy: Policy, tokens: Sequence[int], text: str | None = None) -> list[int]:
    """For every sentence the fewest tokens whose decoded text holds it, as a search counts them.

    `text` is what the tokens were made from, where they were: its sentences count, though a tokenizer may not give it back
    to the letter.
    """

    def text_of(some: Sequence[int]) -> str:
        return str(policy.tokenizer.decode(some, skip_special_tokens=True)).strip()

    sentences = split_sentences(text_of(tokens) if text is None else text.strip())
    return [fewest_tokens(tokens, sentence.end, text_of) for sentence in sentences]


def _token_ids(policy: Policy, answer: str | Sequence[int]) -> list[int]:
    if isinstance(answer, str):
        return policy.answer_ids(answer)
    return list(answer)
