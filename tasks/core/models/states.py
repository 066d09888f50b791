"""The policy's own hidden states at the ends of an answer's sentences: what a value head reads that costs no second network.

A search has these states anyway, for it decodes the sentences. To train on answers that were written before, they are read
again: prompt and answer in one forward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from PIL import Image

from tasks.core.models.policy import Policy
from tasks.core.models.positions import as_position_ids, prompt_positions
from tasks.core.text import split_sentences


@torch.inference_mode()
def sentence_states(
    policy: Policy,
    images: Sequence[Image.Image],
    prompts: Sequence[str],
    answers: Sequence[str | Sequence[int]],
    *,
    layer: int,
    batch_size: int,
    after_batch: Callable[[int, int], None] = lambda answers, tokens: None,
) -> list[torch.Tensor]:
    """The hidden state at the last token of every sentence, one float32 [sentences, D] an answer, on the CPU.

    Args:
        policy: what reads.
        images: one an answer.
        prompts: one an answer.
        answers: texts, or their token ids without an end token.
        layer: hidden layer from the end; -1 is the last one after the final norm, what the language head reads.
        batch_size: answers a forward.
        after_batch: told after every forward how many answers and how many tokens it read.
    """
    found: list[torch.Tensor] = []
    for start in range(0, len(answers), batch_size):
        part = slice(start, start + batch_size)
        ids = [_token_ids(policy, answer) for answer in answers[part]]
        hidden, tokens = _read(policy, images[part], prompts[part], ids, layer)
        for answer, said, row in zip(answers[part], ids, hidden, strict=True):
            ends = sentence_ends(policy, said, answer if isinstance(answer, str) else None)
            found.append(row[[end - 1 for end in ends]].float().cpu())
        after_batch(len(ids), tokens)
    return found


def sentence_ends(policy: Policy, tokens: Sequence[int], text: str | None = None) -> list[int]:
    """For every sentence the fewest tokens whose decoded text holds it, as a search counts them.

    `text` is what the tokens were made from, where they were: its sentences count, though a tokenizer may not give it back
    to the letter.
    """

    def length(count: int) -> int:
        return len(policy.tokenizer.decode(tokens[:count], skip_special_tokens=True).strip())

    if text is None:
        text = policy.tokenizer.decode(tokens, skip_special_tokens=True)
    text, count, ends = text.strip(), len(tokens), []
    for sentence in reversed(split_sentences(text)):
        while count > 1 and length(count - 1) >= sentence.end:
            count -= 1
        ends.append(count)
    return ends[::-1]


def _token_ids(policy: Policy, answer: str | Sequence[int]) -> list[int]:
    if isinstance(answer, str):
        return list(policy.tokenizer(answer, add_special_tokens=False)["input_ids"])
    return list(answer)


def _read(
    policy: Policy, images: Sequence[Image.Image], prompts: Sequence[str], answers: Sequence[list[int]], layer: int
) -> tuple[torch.Tensor, int]:
    """(hidden states [B, longest answer, D] of the answers' tokens, tokens read); rows of short answers end in padding."""
    inputs = policy.inputs(images, prompts)
    rows, width = inputs["input_ids"].shape
    longest = max(map(len, answers))
    positions = prompt_positions(policy.model, inputs)
    after = positions[:, :, -1].amax(dim=0)[:, None] + torch.arange(1, longest + 1, device=policy.device)
    positions = torch.cat([positions, after.expand(len(positions), -1, -1)], dim=2)
    # Prompts are padded on the left, answers on the right: the answers' tokens are the last columns of every row.
    said = {
        "input_ids": [ids + [policy.pad_id] * (longest - len(ids)) for ids in answers],
        "attention_mask": [[1] * len(ids) + [0] * (longest - len(ids)) for ids in answers],
    }
    for name, given in inputs.items():
        if given.shape[:2] != (rows, width):
            continue
        if name in said:
            more = torch.tensor(said[name], dtype=given.dtype, device=policy.device).reshape(rows, longest)
        else:  # token types, a mask over the image: for an answer as for the prompt's last token
            more = given[:, -1:].expand(-1, longest, *given.shape[2:])
        inputs[name] = torch.cat([given, more], dim=1)
    all_layers = layer != -1
    out = policy.model.model(
        **inputs, position_ids=as_position_ids(positions), use_cache=False, output_hidden_states=all_layers
    )
    hidden = out.hidden_states[layer] if all_layers else out.last_hidden_state
    return hidden[:, width:], int(inputs["attention_mask"].sum())
