"""Reads prompts, and texts after prefixes, in as few forwards as memory allows; work is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from PIL import Image

from tasks.core.engine.architecture import Prompt, continuation_inputs, read_prompts
from tasks.core.engine.cache import Buffer, fixed_tensors, gather
from tasks.core.engine.kv_prefix import KVPrefix, UnreadPrefix
from tasks.core.engine.layers import Layers
from tasks.core.engine.prompts import Prompts
from tasks.core.engine.reading import Reading
from tasks.core.models.hidden_states import hidden_states
from tasks.core.models.policy import Policy
from tasks.core.models.positions import as_position_ids

Item = TypeVar("Item")
Result = TypeVar("Result")


class Reader:
    """Reads with one policy."""

    def __init__(self, policy: Policy, layers: Layers, counters: Counter[str]) -> None:
        """`counters` count the work done."""
        self.policy, self.layers, self.counters = policy, layers, counters
        self._prompts = {answer_next: Prompts(policy, answer_next=answer_next) for answer_next in (True, False)}

    @torch.inference_mode()
    def start(self, images: Sequence[Image.Image], prompts: Sequence[str], *, answer_next: bool = True) -> list[Prompt]:
        """Encode images with a prompt each, in one batch (in halves if memory runs out)."""

        def read(part: Sequence[tuple[Image.Image, str]]) -> list[Prompt]:
            inputs = self.policy.inputs([i for i, _ in part], [t for _, t in part], answer_next=answer_next)
            # A recurrent state is kept where the image ends; the text after it is read from there.
            texts = [text for _, text in part]
            ends = self._image_ends(inputs, texts, answer_next) if self.layers.recurrent else None
            read = read_prompts(self.policy, self.layers, inputs, ends)
            self.counters["vision_encodes"] += len(part)
            self.counters["prefill_tokens"] += sum(ends) if ends else int(inputs["attention_mask"].sum())
            self.counters["forwards"] += 1
            if ends is None:
                return read
            tails = [(prompt.prefix, prompt.ids[end:]) for prompt, end in zip(read, ends, strict=True)]
            after = [replace(prefix, ends_prompt=True) for prefix in self._read_apart(tails, None)]
            return [prompt._replace(prefix=prefix) for prompt, prefix in zip(read, after, strict=True)]

        return self._halving(list(zip(images, prompts, strict=True)), read)

    def _image_ends(self, inputs: dict[str, Any], texts: Sequence[str], answer_next: bool) -> list[int]:
        """How many tokens each prompt's image ends after; all but its last token where the text comes first."""
        ends = []
        for text, mask in zip(texts, inputs["attention_mask"].tolist(), strict=True):
            _, tail = self._prompts[answer_next].split(text)
            ends.append(sum(mask) - max(1, len(tail)))
        return ends

    @torch.inference_mode()
    def read(
        self,
        items: Sequence[tuple[KVPrefix | UnreadPrefix, Sequence[int]]],
        *,
        layer: int | None = None,
        keep: bool = True,
    ) -> list[KVPrefix]:
        """Read tokens after prefixes, all in one batch; returns the prefixes after them.

        Args:
            items: prefixes with at least one token each.
            layer: keep the hidden state of this layer at the last token as the prefix's `state`.
            keep: whether the new prefixes will be continued; else only their states are valid (and a prefix without tokens
                gets its own state).
        """
        if keep and any(not tokens for _, tokens in items):
            raise ValueError("nothing to read: want at least one token for every prefix")
        prefixes = self.settled([prefix for prefix, _ in items])
        after = [(prefix, tokens) for prefix, (_, tokens) in zip(prefixes, items, strict=True)]
        if keep and self.layers.recurrent:
            return self._read_apart(after, layer)
        return self._halving(after, lambda part: self._read(part, layer, keep))

    @torch.inference_mode()
    def settled(self, prefixes: Sequence[KVPrefix | UnreadPrefix]) -> list[KVPrefix]:
        """The prefixes, those of recurrent models that end a decoded span read if they were not yet."""
        unread = {id(p): p for p in prefixes if isinstance(p, UnreadPrefix) and p.read is None}
        items = [(prefix.start, prefix.tokens) for prefix in unread.values()]
        for prefix, read in zip(unread.values(), self._read_apart(items, None) if items else [], strict=True):
            prefix.read = read
        return [p.read if isinstance(p, UnreadPrefix) and p.read is not None else p for p in prefixes]  # type: ignore[misc]

    def _read_apart(self, items: Sequence[tuple[KVPrefix, Sequence[int]]], layer: int | None) -> list[KVPrefix]:
        """`read` of a model with recurrent layers: all tokens but the last, without padding, which would enter a state."""
        by_length: dict[int, list[int]] = {}
        for index, (prefix, tokens) in enumerate(items):
            by_length.setdefault(len(tokens) - (prefix.pending is None), []).append(index)
        read: dict[int, KVPrefix] = {}
        for indices in by_length.values():
            read |= zip(indices, self._halving([items[i] for i in indices], self._read_all_but_last), strict=True)
        after = [read[index] for index in range(len(items))]
        if layer is None:
            return after
        states = self._halving([(prefix, ()) for prefix in after], lambda part: self._read(part, layer, False))
        return [prefix.with_state(last.state) for prefix, last in zip(after, states, strict=True)]

    def _read_all_but_last(self, items: Sequence[tuple[KVPrefix, Sequence[int]]]) -> list[KVPrefix]:
        if items[0][0].pending is None and len(items[0][1]) == 1:  # nothing to feed yet
            empty = [tuple(slab[:, :, :0] for slab in prefix.kv) for prefix, _ in items]
            return [p.extended(kv, tokens, None, p.recurrent) for (p, tokens), kv in zip(items, empty, strict=True)]
        reading, buffer, _ = self._forward([(prefix, tokens[:-1]) for prefix, tokens in items], None, keep=True)
        columns = buffer.used - reading.steps
        read = []
        for (prefix, tokens), (row, start, end) in zip(items, reading.spans, strict=True):
            kv = tuple(slab[:, row, :, columns + start : columns + end].clone() for slab in buffer.slabs)
            read.append(prefix.extended(kv, tokens, None, buffer.states(row)))
        return read

    def _read(self, items: Sequence[tuple[KVPrefix, Sequence[int]]], layer: int | None, keep: bool) -> list[KVPrefix]:
        reading, buffer, hidden = self._forward(items, layer, keep=keep)
        columns = buffer.used - reading.steps
        read = []
        for (prefix, tokens), (row, start, end) in zip(items, reading.spans, strict=True):
            state = None if hidden is None else hidden[row, end - 1].float().clone()
            if not keep:
                read.append(prefix.with_state(state))
                continue
            kv = tuple(slab[:, row, :, columns + start : columns + end - 1].clone() for slab in buffer.slabs)
            read.append(prefix.extended(kv, tokens, state))
        return read

    def _forward(
        self, items: Sequence[tuple[KVPrefix, Sequence[int]]], layer: int | None, *, keep: bool
    ) -> tuple[Reading, Buffer, torch.Tensor | None]:
        """Feed tokens after prefixes; returns the hidden states [G, T, D] of a layer."""
        reading = Reading.of(items, apart=self.layers.recurrent)
        prefixes = reading.prefixes
        columns = max(prefix.length for prefix in prefixes)
        slabs = gather(prefixes, columns=columns, extra=reading.steps)
        fixed = fixed_tensors(prefixes, [prefix.recurrent for prefix in prefixes])
        buffer = Buffer(self.layers, prefixes[0].root.layout, slabs, columns, fixed)
        inputs = {
            "input_ids": reading.ids,
            "attention_mask": self.layers.mask(reading.mask(columns, buffer.dtype), reading.distance(columns)),
            "position_ids": as_position_ids(reading.positions),
            "past_key_values": buffer.cache,
            "use_cache": True,
            **continuation_inputs(prefixes, reading.steps),
        }
        if keep and layer is not None and layer < -1:  # the layers behind it must read too, for what follows
            hidden = self.policy.model.model(**inputs, output_hidden_states=True).hidden_states[layer]
        else:
            hidden = hidden_states(self.policy.model, layer, **inputs)
        self.counters["read_tokens"] += reading.tokens
        self.counters["forwards"] += 1
        return reading, buffer, hidden

    def _halving(self, items: list[Item], work: Callable[[Sequence[Item]], list[Result]]) -> list[Result]:
        """`work(items)`, in two halves if memory runs out."""
        try:
            return work(items) if items else []
        except (RuntimeError, MemoryError) as error:
            if len(items) == 1 or not out_of_memory(error):
                raise
        self.counters["out_of_memory"] += 1
        free_memory()
        middle = len(items) // 2
        return self._halving(items[:middle], work) + self._halving(items[middle:], work)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on a GPU or on the CPU."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in text


def free_memory() -> None:
    """Return cached blocks to the device."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
