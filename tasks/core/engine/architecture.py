"""How a policy reads prompts: what each architecture keeps of them, and what it needs to continue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from transformers.cache_utils import Cache

from tasks.core.engine.kv_prefix import KV, KVPrefix, Root
from tasks.core.engine.layers import CannotFork, Layers, Layout, tensor_of
from tasks.core.models.per_token import heads, per_token, reads_both_ways
from tasks.core.models.policy import Policy
from tasks.core.models.positions import as_position_ids, prompt_positions

__all__ = ["CannotFork", "Prompt", "continuation_inputs", "read_prompts"]


class Prompt(NamedTuple):
    """A prompt that was read: its prefix, and what is needed to continue from a point within it."""

    prefix: KVPrefix
    ids: list[int]
    positions: torch.Tensor  # [axes, tokens]
    divisible: bool = True  # the tokens up to a point are read without regard to those after it

    def image_prefix(self, tokens: int) -> KVPrefix:
        """The prefix of its first `tokens` tokens, which end with the image; the next token is text.

        Raises:
            ValueError: for no such point in the prompt, or one at which a recurrent state was not kept.
        """
        if not 0 < tokens < len(self.ids):
            raise ValueError(f"{tokens} of a prompt's {len(self.ids)} tokens: want at least one, and one left")
        if not self.divisible:
            raise ValueError("the policy reads its prompts in both directions: no part of one stands by itself")
        root = self.prefix.root
        if root.layout.states:
            first = self.prefix.chain()[0]
            if first.length != tokens:
                raise ValueError(f"{tokens} tokens: a recurrent state was kept after {first.length} of the prompt only")
            return first
        return KVPrefix(
            parent=None,
            root=root,
            kv=tuple(slab[:, :, :tokens] for slab in self.prefix.kv),
            length=tokens,
            pending=None,
            position=self.positions[:, tokens - 1],
            next_position=int(self.positions[0, tokens]),
            tokens=tuple(self.ids[:tokens]),
        )


def read_prompts(
    policy: Policy, layers: Layers, inputs: dict[str, Any], ends: Sequence[int] | None = None
) -> list[Prompt]:
    """Prefill prompts, each image encoded once.

    Args:
        policy: what reads.
        layers: its layers.
        inputs: of `policy.inputs`, B rows.
        ends: how many tokens of each prompt to read; nothing is pending then. None: all, with the last one pending.

    Raises:
        CannotFork: the model's cache is not what its configuration promises.
    """
    model = policy.model
    mask = inputs["attention_mask"].long()
    positions = prompt_positions(model, inputs)
    lengths = mask.sum(dim=1).tolist()
    all_ids = [ids[len(ids) - n :] for ids, n in zip(inputs["input_ids"].tolist(), lengths, strict=True)]
    fed, fed_positions = inputs, positions
    if ends is not None:
        fed = inputs | {name: heads(inputs[name], lengths, ends) for name in per_token(inputs)}
        fed_positions = torch.stack([heads(axis, lengths, ends) for axis in positions])
    cache = layers.empty_cache()
    out = model.model(**fed, position_ids=as_position_ids(fed_positions), past_key_values=cache, use_cache=True)
    layout = Layout.of(out.past_key_values, layers)
    read = list(lengths) if ends is None else list(ends)
    kept = _rows(out.past_key_values, layout, [(n, n - (ends is None)) for n in read])
    prompts = []
    for row, (ids, n) in enumerate(zip(all_ids, read, strict=True)):
        own = positions[:, row, positions.shape[2] - lengths[row] :].clone()
        root = _root(out.past_key_values, layout, row, inputs.get("cross_attention_mask"))
        states = tuple(tensor_of(out.past_key_values, entry)[row].clone() for entry in layout.states)
        prefix = KVPrefix(
            parent=None,
            root=root,
            kv=kept[row],
            length=n - (ends is None),
            pending=ids[-1] if ends is None else None,
            position=own[:, n - 1],
            next_position=int(own[:, -1].max()) + 1 if ends is None else int(own[0, n]),
            recurrent=states,
            tokens=tuple(ids[:n]),
        )
        prompts.append(Prompt(prefix, ids, own, not reads_both_ways(model)))
    return prompts


def _rows(cache: Cache, layout: Layout, spans: Sequence[tuple[int, int]]) -> list[KV]:
    """Keys and values of each row: of its last `length` columns the first `kept`; the cache's own are freed on the way.

    Cloned: a slice would keep the whole batch in memory for as long as one row is used.
    """
    rows: list[list[torch.Tensor]] = [[] for _ in spans]
    for entries in layout.slabs:
        for row, (length, kept) in enumerate(spans):
            parts = [tensor_of(cache, entry)[row] for entry in entries]
            start = parts[0].shape[1] - length
            rows[row].append(torch.stack([part[:, start : start + kept] for part in parts]))
        for entry in entries:
            setattr(cache.layers[entry.layer], entry.part, None)
    return [tuple(row) for row in rows]


def _root(cache: Cache, layout: Layout, row: int, cross_mask: torch.Tensor | None) -> Root:
    return Root(
        layout=layout,
        cross_kv=tuple(tensor_of(cache, entry)[row].clone() for entry in layout.cross),
        cross_mask=None if cross_mask is None else cross_mask[row, -1].clone(),
    )


def continuation_inputs(prefixes: Sequence[KVPrefix], steps: int) -> dict[str, torch.Tensor]:
    """Extra model inputs of a continuation by `steps` tokens per row, beside ids, mask, positions and cache."""
    masks = [prefix.root.cross_mask for prefix in prefixes if prefix.root.cross_mask is not None]
    if not masks:
        return {}
    return {"cross_attention_mask": torch.stack(masks)[:, None].expand(-1, steps, -1, -1)}
