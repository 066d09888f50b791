"""Model inputs that have a value for every token, whatever an architecture calls them: cut, and extended by an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch


def per_token(inputs: Mapping[str, torch.Tensor]) -> list[str]:
    """Names of the inputs [B, L, ...] that have a value for every token of `input_ids` [B, L]."""
    shape = inputs["input_ids"].shape
    return [name for name, tensor in inputs.items() if tensor.dim() >= 2 and tensor.shape[:2] == shape]


def reads_both_ways(model: Any) -> bool:
    """Whether a prompt's tokens attend to those after them (PaliGemma): no part of it can be read without the rest."""
    return str(model.config.model_type) == "paligemma"


def with_answers(
    model: Any, inputs: Mapping[str, torch.Tensor], answers: Sequence[Sequence[int]], *, pad_id: int
) -> dict[str, torch.Tensor]:
    """Inputs of left-padded prompts [B, L] with answers' token ids behind them, [B, L + longest answer], padded on the left."""
    longest, extended = max(map(len, answers)), dict(inputs)
    for name in per_token(inputs):
        prompt = inputs[name]
        rows, width = prompt.shape[:2]
        wider = prompt.new_full((rows, width + longest, *prompt.shape[2:]), pad_id if name == "input_ids" else 0)
        for row, answer in enumerate(answers):
            end = width + longest - len(answer)
            wider[row, end - width : end] = prompt[row]
            if name == "input_ids":
                wider[row, end:] = torch.tensor(answer).to(wider)
            elif name == "token_type_ids" and reads_both_ways(model):
                wider[row, end:] = 1  # what doesn't belong to the prompt
            else:
                wider[row, end:] = prompt[row, -1]  # an answer is text, like the prompt's last token
        extended[name] = wider
    return extended


def heads(tensor: torch.Tensor, lengths: Sequence[int], ends: Sequence[int]) -> torch.Tensor:
    """[B, longest, ...]: the first `ends` of the `lengths` tokens of each left-padded row [B, L, ...], padded on the left."""
    longest = max(ends)
    kept = torch.zeros_like(tensor[:, :longest])
    for row, (length, end) in enumerate(zip(lengths, ends, strict=True)):
        start = tensor.shape[1] - length
        kept[row, longest - end :] = tensor[row, start : start + end]
    return kept
