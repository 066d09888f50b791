"""Answers by decoding methods of transformers' own `generate`, as baselines for searches.

None of them needs the network or remote code: beam search is transformers' own, diverse beam search (arXiv 1610.02424) and
contrastive search (arXiv 2202.06417), which transformers has moved to the hub, are in `custom_generate`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from PIL import Image
from transformers.generation.logits_process import LogitsProcessor, LogitsProcessorList

from tasks.core.engine.custom_generate import BeamGroups, ContrastiveOptions, contrastive_search, diverse_beam_search
from tasks.core.models.decoding_rules import NEUTRAL, TokenHistory
from tasks.core.models.policy import Policy

DEFAULTS: Mapping[str, Mapping[str, float]] = {
    "beam": {"num_beams": 4, "length_penalty": 1.0},
    "diverse_beam": {"num_beams": 4, "groups": 2, "diversity_penalty": 0.5, "length_penalty": 1.0},
    "contrastive": {"top_k": 4, "penalty_alpha": 0.6},
}
"""The methods with their options: counts, and length_penalty (the power of the length that a log-probability is divided by),
diversity_penalty (nats) and penalty_alpha (in [0, 1])."""


@dataclass(frozen=True)
class GeneratedAnswer:
    """One answer."""

    text: str  # stripped
    tokens: tuple[int, ...]  # without an end token
    ended: bool  # by the policy; else it was cut at the limit
    drawn: int  # tokens decoded for it: its rows (beams or candidates) times the steps of the batch it ran in


class _Ruled(LogitsProcessor):
    """Applies the policy's rules, and counts decoding steps: each calls its processors once."""

    def __init__(self, policy: Policy, attention_mask: torch.Tensor) -> None:
        """`attention_mask` [N, L] of the prompts; the rows of a prompt lie side by side."""
        self.rules, self.count = policy.rules, 0
        self._length = attention_mask.shape[1]
        self._starts = (attention_mask != 0).int().argmax(dim=1).tolist()

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """The scores [R, V] under the rules."""
        self.count += 1
        histories = []
        if self.rules.needs_history:
            copies = len(input_ids) // len(self._starts)
            for row, ids in enumerate(input_ids.tolist()):
                histories.append(TokenHistory(ids[self._starts[row // copies] : self._length], ids[self._length :]))
        return self.rules(scores.clone(), histories)  # type: ignore[return-value]


def generate_answers(
    policy: Policy,
    images: Sequence[Image.Image],
    prompts: Sequence[str],
    *,
    method: str,
    options: Mapping[str, float],
    max_new_tokens: int,
) -> list[GeneratedAnswer]:
    """One answer for each image with its prompt.

    Texts don't depend on the rest of the batch, but `drawn` does: `generate` runs until the last answer is finished.

    Args:
        policy: the model; its decoding rules apply, as in the engine.
        images: N of them.
        prompts: one for each image.
        method: "beam", "diverse_beam" or "contrastive".
        options: of the method; missing ones are taken from `DEFAULTS`.
        max_new_tokens: the longest answer.

    Raises:
        ValueError: for an unknown method or option, or a value out of its range.
    """
    rows, arguments = _arguments(method, options)
    inputs = policy.inputs(images, prompts)
    steps = _Ruled(policy, inputs["attention_mask"])
    out = policy.model.generate(
        **inputs,
        **(NEUTRAL | arguments),
        do_sample=False,
        early_stopping=False,
        use_cache=True,
        max_new_tokens=max_new_tokens,
        eos_token_id=sorted(policy.end_ids),
        pad_token_id=policy.pad_id,
        logits_processor=LogitsProcessorList([steps]),
    )
    answers = []
    for tokens in out[:, inputs["input_ids"].shape[1] :].tolist():
        end = next((at for at, token in enumerate(tokens) if token in policy.end_ids), len(tokens))
        text = policy.tokenizer.decode(tokens[:end], skip_special_tokens=True).strip()
        answers.append(GeneratedAnswer(text, tuple(tokens[:end]), end < len(tokens), rows * steps.count))
    return answers


def _arguments(method: str, options: Mapping[str, float]) -> tuple[int, dict[str, Any]]:
    """(rows for each prompt, arguments of `generate`)."""
    if method not in DEFAULTS:
        raise ValueError(f"method {method!r} is unknown: want one of {', '.join(DEFAULTS)}")
    known = DEFAULTS[method]
    if unknown := sorted(set(options) - set(known)):
        raise ValueError(f"{method} has no option {', '.join(unknown)}: it has {', '.join(known)}")
    value = {**known, **options}
    if method == "contrastive":
        rows = _whole("top_k", value)
        alpha = value["penalty_alpha"]
        if not 0 <= alpha <= 1:
            raise ValueError(f"penalty_alpha is {alpha}: want 0 (greedy) to 1")
        return rows, {"custom_generate": partial(contrastive_search, options=ContrastiveOptions(rows, alpha))}
    rows, length_penalty = _whole("num_beams", value), value["length_penalty"]
    if method == "beam":
        return rows, {"num_beams": rows, "length_penalty": length_penalty}
    groups, penalty = _whole("groups", value), value["diversity_penalty"]
    if rows % groups:
        raise ValueError(f"{rows} beams in {groups} groups: num_beams must be a multiple of groups")
    if not penalty >= 0:
        raise ValueError(f"diversity_penalty is {penalty}: want 0 or more")
    search = partial(diverse_beam_search, beams=BeamGroups(rows, groups, penalty))
    return rows, {"custom_generate": search, "length_penalty": length_penalty}


def _whole(name: str, values: Mapping[str, float]) -> int:
    """An option that must be a whole number."""
    number = values[name]
    if number < 1 or number != int(number):
        raise ValueError(f"{name} is {number}: want a whole number from 1")
    return int(number)
