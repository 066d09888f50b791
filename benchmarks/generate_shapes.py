"""Ways to decode a search's candidates with transformers' `generate`, from the released call shape to the strongest one.

Every way draws the same tokens; they differ in what is read again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache, LogitsProcessorList, StoppingCriteriaList

from tasks.core.engine.fallback import GenerateDecoder, PromptState, _Finished, _ForcedRows, _span
from tasks.core.engine.rows import Completion, Row
from tasks.core.models.decoding_rules import NEUTRAL
from tasks.core.models.policy import Policy


class PlainGenerate(GenerateDecoder):
    """Image, prompt and answer so far are read again by every call."""

    @torch.inference_mode()
    def _generate(self, rows: Sequence[Row], limit: int) -> list[tuple[Row, Completion]]:
        inputs = self._inputs([row.prefix for row in rows])
        self._draw(rows, limit, inputs)
        return [(row, row.completion(_span(row))) for row in rows]

    def _draw(self, rows: Sequence[Row], limit: int, inputs: dict[str, Any]) -> None:
        """One call of `generate` that draws these rows' tokens."""
        for row, ids, mask in zip(rows, inputs["input_ids"].tolist(), inputs["attention_mask"].tolist(), strict=True):
            row.start_history([id_ for id_, real in zip(ids, mask, strict=True) if real])
        forced = _ForcedRows(rows, self.token_texts)
        self.policy.model.generate(
            **inputs,
            **NEUTRAL,
            do_sample=False,
            max_new_tokens=limit,
            logits_processor=LogitsProcessorList([forced]),
            stopping_criteria=StoppingCriteriaList([_Finished(forced)]),
        )


class OneCallEach(PlainGenerate):
    """A `generate` call for every candidate."""

    def advance(self) -> list[tuple[Row, Completion]]:
        """Decode all queued rows, one after the other."""
        rows, self._waiting = self._waiting, []
        return [done for row in rows for done in self._generate([row], row.limit)]


class OneCallAStep(PlainGenerate):
    """A `generate` call for all queued candidates; image and prompt go through the processor once for all of them."""

    def _inputs(self, prefixes: Sequence[PromptState]) -> dict[str, Any]:
        different = list(dict.fromkeys(prefixes))
        candidates = len(prefixes) // len(different)
        return {name: rows.repeat_interleave(candidates, dim=0) for name, rows in super()._inputs(different).items()}


class _Kept(NamedTuple):
    """A row of a cache: keys and values of all tokens of a prefix but the last."""

    layers: list[tuple[torch.Tensor, torch.Tensor]]  # [rows, heads, columns, D] each
    row: int
    columns: slice
    ids: list[int]  # of the whole prefix


class KeptCache(PlainGenerate):
    """The key-value cache is kept between sentences and repeated over the candidates; several images' caches are padded left.

    What a careful user of transformers can write: nothing is read twice, and a step is one call of `generate`. For models whose
    positions count tokens.
    """

    def __init__(self, policy: Policy, why: str) -> None:
        """As the fallback."""
        super().__init__(policy, why)
        self._kept: dict[int, dict[tuple[int, ...], _Kept]] = {}  # of each image, by the answer's tokens

    @torch.inference_mode()
    def _generate(self, rows: Sequence[Row], limit: int) -> list[tuple[Row, Completion]]:
        prefixes = list({(id(row.prefix.image), row.prefix.before): row.prefix for row in rows}.values())
        self._read([prefix for prefix in prefixes if prefix.before not in self._kept.get(id(prefix.image), {})])
        kept = [self._kept[id(prefix.image)][prefix.before] for prefix in prefixes]
        at = {(id(prefix.image), prefix.before): index for index, prefix in enumerate(prefixes)}
        of = [at[id(row.prefix.image), row.prefix.before] for row in rows]
        longest = max(len(each.ids) for each in kept)
        cache, layers = DynamicCache(), _padded(kept, longest - 1)
        index = torch.tensor(of)
        for number, (keys, values) in enumerate(layers):
            cache.update(keys[index], values[index], number)
        ids = torch.tensor([[self.policy.pad_id] * (longest - len(each.ids)) + each.ids for each in kept])[index]
        mask = torch.tensor([[0] * (longest - len(each.ids)) + [1] * len(each.ids) for each in kept])[index]
        self._draw(rows, limit, {"input_ids": ids, "attention_mask": mask, "past_key_values": cache})
        grown = [(layer.keys, layer.values) for layer in cache.layers]
        for image in {id(row.prefix.image) for row in rows}:
            self._kept[image] = {}
        done = []
        for number, row in enumerate(rows):
            span, before = _span(row), kept[of[number]].ids
            start = longest - len(before)
            columns = slice(start, start + len(before) + len(span.tokens) - 1)
            after = row.prefix.before + span.tokens
            self._kept[id(row.prefix.image)][after] = _Kept(grown, number, columns, [*before, *span.tokens])
            done.append((row, row.completion(span)))
        return done

    def _read(self, prefixes: Sequence[PromptState]) -> None:
        """Prefill prefixes that no cache holds, in one batch."""
        if not prefixes:
            return
        inputs = self._inputs(prefixes)
        mask = inputs["attention_mask"]
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        out = self.policy.model.model(**inputs, position_ids=positions, use_cache=True)
        layers = [(layer.keys, layer.values) for layer in out.past_key_values.layers]
        for row, prefix in enumerate(prefixes):
            pad = int((mask[row] == 0).sum())
            ids = inputs["input_ids"][row, pad:].tolist()
            kept = _Kept(layers, row, slice(pad, mask.shape[1] - 1), ids)
            self._kept.setdefault(id(prefix.image), {})[prefix.before] = kept


def _padded(kept: Sequence[_Kept], columns: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Keys and values [prefixes, heads, columns, D] of each layer, padded on the left."""

    def one_row(tensor: torch.Tensor, each: _Kept) -> torch.Tensor:
        row = tensor[each.row, :, each.columns]
        return torch.nn.functional.pad(row, (0, 0, columns - row.shape[1], 0))

    return [
        (
            torch.stack([one_row(each.layers[number][0], each) for each in kept]),
            torch.stack([one_row(each.layers[number][1], each) for each in kept]),
        )
        for number in range(len(kept[0].layers))
    ]
