"""A plain forward of a policy, without any cache; and rows decoded to their ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from tasks.core.engine.decoder import Decoder
from tasks.core.engine.fallback import GenerateDecoder
from tasks.core.engine.rows import Completion, Row
from tasks.core.models.policy import Policy


@torch.inference_mode()
def plain(policy: Policy, image: Image.Image, prompt: str, tokens: Sequence[int], layer: int = -1) -> tuple[Any, Any]:
    """(logits [V], hidden state [D] of a layer) at the last token; positions are the model's own."""
    inputs = policy.inputs([image], [prompt])
    width, answer_ids = inputs["input_ids"].shape[1], torch.tensor([list(tokens)], dtype=torch.long)
    for name, given in inputs.items():
        if name == "input_ids":
            inputs[name] = torch.cat([given, answer_ids], dim=1)
        elif given.shape[:2] == (1, width):  # masks and token types: repeat those of the prompt's last token
            last = given[:, -1:].expand(-1, len(tokens), *given.shape[2:])
            # PaliGemma's 0 is of the prompt, whose tokens see each other in both directions.
            last = torch.ones_like(last) if name == "token_type_ids" and "pali" in policy.digest else last
            inputs[name] = torch.cat([given, last], dim=1)
    out = policy.model(**inputs, use_cache=False, output_hidden_states=True)
    return out.logits[0, -1], out.hidden_states[layer][0, -1]


def answer(decoder: Decoder | GenerateDecoder, rows: Sequence[Row]) -> list[Completion]:
    """The completion of each row, in order."""
    completions: dict[int, Completion] = {}
    decoder.add([Row(r.prefix, r.draw, r.until, r.limit, r.keep, owner=i) for i, r in enumerate(rows)])
    while len(completions) < len(rows):
        completions |= {row.owner: completion for row, completion in decoder.advance()}
    return [completions[index] for index in range(len(rows))]


def same(ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor], atol: float) -> bool:
    """Whether two lists of tensors agree to `atol`."""
    return all(torch.allclose(a, b, atol=atol, rtol=0) for a, b in zip(ours, theirs, strict=True))
