"""Less memory changes how much is decoded at once, and no text."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

from tasks.core.engine import decoder as decoder_module
from tasks.core.engine.batch import Batch
from tasks.core.engine.decoder import Decoder, out_of_memory
from tasks.core.engine.rows import Completion, Draw, Row
from tasks.core.search.requests import ANSWER, SENTENCE
from tests.support.plain import answer

LIMIT = 90
ROWS = 48


def rows_of(decoder: Decoder, pictures, prompts) -> list[Row]:
    """Three answers of each image; one in four is a sentence."""
    starts = [prompt.prefix for prompt in decoder.start(pictures, prompts)]
    return [
        Row(starts[i // 3], Draw(0.4 * (i % 3), 0.9, ("m", i)), SENTENCE if i % 4 == 0 else ANSWER, LIMIT)
        for i in range(ROWS)
    ]


def bare(completions: list[Completion]) -> list[tuple]:
    return [(completion.tokens, completion.text, completion.ended, completion.drawn) for completion in completions]


@pytest.fixture(scope="module")
def expected(policy, pictures, prompts) -> list[tuple]:
    decoder = Decoder(policy)
    return bare(answer(decoder, rows_of(decoder, pictures, prompts)))


class Small:
    """The policy's model on a machine where more than so many rows don't fit."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, policy, *, rows: int, error: Exception | None = None) -> None:
        self.refused = 0
        forward = policy.model.model.forward

        def small(*args: Any, **inputs: Any) -> Any:
            if len(inputs["input_ids"]) > rows:
                self.refused += 1
                raise error or torch.OutOfMemoryError("CUDA out of memory")
            return forward(*args, **inputs)

        monkeypatch.setattr(policy.model.model, "forward", small)


@pytest.fixture
def batches(monkeypatch) -> list[Batch]:
    """Every batch that is made."""
    made: list[Batch] = []

    class Seen(Batch):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            made.append(self)

    monkeypatch.setattr(decoder_module, "Batch", Seen)
    return made


@pytest.mark.parametrize("kv_token_budget", [2000, 900])
def test_a_batch_never_exceeds_the_budget(policy, pictures, prompts, expected, batches, kv_token_budget: int) -> None:
    decoder = Decoder(policy, kv_token_budget=kv_token_budget)
    assert bare(answer(decoder, rows_of(decoder, pictures, prompts))) == expected
    assert max(batch.kv_tokens for batch in batches) <= kv_token_budget
    # Once more than enough waits the budget is used.
    assert max(batch.kv_tokens for batch in batches) > 0.7 * kv_token_budget
    assert decoder.kv_token_budget == kv_token_budget
    assert decoder.counters["out_of_memory"] == 0


def test_a_row_that_is_over_budget_by_itself_is_decoded_by_itself(policy, pictures, prompts, expected, batches) -> None:
    decoder = Decoder(policy, kv_token_budget=1)
    rows = rows_of(decoder, pictures, prompts)[:4]
    assert bare(answer(decoder, rows)) == expected[:4]
    assert {batch.size for batch in batches} == {1}


def test_rows_that_outgrow_the_budget_begin_again_and_give_the_same(
    policy, pictures, prompts, expected, batches
) -> None:
    decoder = Decoder(policy, kv_token_budget=800, regroup_threshold=0.9)
    whole = [i for i in range(ROWS) if i % 4]
    rows = rows_of(decoder, pictures, prompts)
    assert bare(answer(decoder, [rows[i] for i in whole])) == [expected[i] for i in whole]
    assert decoder.counters["decode_tokens"] > sum(expected[i][-1] for i in whole), "no row had to begin again"
    assert max(batch.kv_tokens for batch in batches) <= 800


@pytest.mark.parametrize(
    "error", [None, MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to ...")]
)
def test_where_memory_runs_out_less_is_decoded_at_once(
    policy, pictures, prompts, expected, monkeypatch, caplog, error
) -> None:
    decoder = Decoder(policy)
    rows = rows_of(decoder, pictures, prompts)
    small = Small(monkeypatch, policy, rows=10, error=error)
    with caplog.at_level(logging.WARNING):
        assert bare(answer(decoder, rows)) == expected
    assert decoder.counters["out_of_memory"] == small.refused > 0
    warnings = [record.getMessage() for record in caplog.records if "out of memory with" in record.getMessage()]
    assert len(warnings) == small.refused
    assert warnings[-1].endswith(f"tokens: retrying with {decoder.kv_token_budget}")


def test_memory_that_runs_out_in_the_middle_loses_and_repeats_no_row(
    policy, pictures, prompts, expected, monkeypatch
) -> None:
    decoder, finished = Decoder(policy, regroup_threshold=0.9), []
    decoder.add(
        [Row(r.prefix, r.draw, r.until, r.limit, owner=i) for i, r in enumerate(rows_of(decoder, pictures, prompts))]
    )
    while len(finished) < 5:
        finished += decoder.advance()
    Small(monkeypatch, policy, rows=16)
    while not decoder.idle:
        finished += decoder.advance()
    assert decoder.counters["out_of_memory"] >= 1
    assert sorted(row.owner for row, _ in finished) == list(range(ROWS))
    assert bare([completion for _, completion in sorted(finished, key=lambda pair: pair[0].owner)]) == expected


def test_a_batch_that_can_not_even_be_made_is_made_smaller(policy, pictures, prompts, expected, monkeypatch) -> None:
    from tasks.core.engine import batch

    new_slab = batch.new_slab

    def small(prefixes: Any, *args: Any, **options: Any) -> Any:
        if len(prefixes) > 7:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return new_slab(prefixes, *args, **options)

    decoder = Decoder(policy)
    rows = rows_of(decoder, pictures, prompts)
    monkeypatch.setattr(batch, "new_slab", small)
    assert bare(answer(decoder, rows)) == expected
    assert decoder.counters["out_of_memory"] > 1


def test_prompts_and_texts_are_read_in_parts_that_fit(policy, pictures, prompts, expected, monkeypatch) -> None:
    whole = Decoder(policy)
    items = [(prompt.prefix, (5 + i,) * (1 + i % 3)) for i, prompt in enumerate(whole.start(pictures, prompts))]
    states = [prefix.state for prefix in whole.read(items, layer=-1)]
    small, decoder = Small(monkeypatch, policy, rows=3), Decoder(policy)
    starts = [prompt.prefix for prompt in decoder.start(pictures, prompts)]
    assert decoder.counters["out_of_memory"] == small.refused == 7  # 16, twice 8, four times 4
    assert decoder.counters["vision_encodes"] == 16
    assert decoder.counters["prefill_tokens"] == whole.counters["prefill_tokens"]
    in_parts = [
        prefix.state for prefix in decoder.read([(s, t) for s, (_, t) in zip(starts, items, strict=True)], layer=-1)
    ]
    assert decoder.counters["out_of_memory"] == small.refused == 14
    assert all(torch.allclose(halved, state, atol=1e-5) for halved, state in zip(in_parts, states, strict=True))


def test_what_does_not_fit_by_itself_fails(policy, pictures, prompts, monkeypatch) -> None:
    decoder = Decoder(policy)
    starts = [prompt.prefix for prompt in decoder.start(pictures[:3], prompts[:3])]
    Small(monkeypatch, policy, rows=0)
    for work in (
        lambda: answer(decoder, [Row(start, Draw(0.0, 1.0, ()), ANSWER, 9) for start in starts]),
        lambda: decoder.start(pictures[:3], prompts[:3]),
        lambda: decoder.read([(start, (5,)) for start in starts]),
    ):
        with pytest.raises(torch.OutOfMemoryError):
            work()


def test_another_error_is_not_taken_for_one_of_memory(policy, pictures, prompts, monkeypatch) -> None:
    decoder = Decoder(policy)
    starts = [prompt.prefix for prompt in decoder.start(pictures[:3], prompts[:3])]
    Small(monkeypatch, policy, rows=1, error=RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        answer(decoder, [Row(start, Draw(0.0, 1.0, ()), ANSWER, 9) for start in starts])
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        decoder.start(pictures[:3], prompts[:3])
    assert decoder.counters["out_of_memory"] == 0
    assert not out_of_memory(ValueError("no memory of it"))
