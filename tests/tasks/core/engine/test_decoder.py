"""The decoder against prefilling again, and against itself with other batches, other orders and less memory."""

from __future__ import annotations

import pytest
import torch

from tasks.core.engine import batch
from tasks.core.engine.decoder import Decoder
from tasks.core.engine.kv_prefix import KVPrefix
from tasks.core.engine.rows import Completion, Draw, Row, TokenTexts, sentences_of
from tasks.core.search.requests import ANSWER, SENTENCE, Candidate
from tasks.core.text import split_sentences
from tests.support.plain import answer, plain, same

GREEDY = Draw(0.0, 1.0, ())
LIMIT = 90


def start_prefixes(decoder: Decoder, pictures, prompts) -> list[KVPrefix]:
    return [prompt.prefix for prompt in decoder.start(pictures, prompts)]


def answers(decoder: Decoder, pictures, prompts, draws, limit: int = LIMIT, until: str = ANSWER) -> list[tuple]:
    starts = start_prefixes(decoder, pictures, prompts)
    return bare(answer(decoder, [Row(start, draw, until, limit) for start, draw in zip(starts, draws, strict=True)]))


def bare(completions: list[Completion]) -> list[tuple]:
    return [(completion.tokens, completion.text, completion.ended, completion.drawn) for completion in completions]


def draws_of(count: int, temperature: float = 0.9) -> list[Draw]:
    return [Draw(temperature, 0.9, ("test", i)) for i in range(count)]


def test_greedy_is_what_generate_gives_token_for_token(policy, pictures, prompts) -> None:
    inputs = policy.inputs(pictures, prompts)
    assert (inputs["attention_mask"][:, 0] == 0).any(), "nothing is padded on the left"
    with torch.inference_mode():
        out = policy.model.generate(**inputs, do_sample=False, max_new_tokens=LIMIT)
    expected = []
    for row in out[:, inputs["input_ids"].shape[1] :].tolist():
        end = next((at for at, token in enumerate(row) if token in policy.end_ids), len(row))
        expected.append((tuple(row[:end]), end + 1))
    completions = answers(Decoder(policy), pictures, prompts, [GREEDY] * 16)
    assert [(tokens, drawn) for tokens, _, _, drawn in completions] == expected
    assert all(ended for _, _, ended, _ in completions)
    assert len(set(expected)) > 2


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_a_batch_of_16_gives_what_16_batches_of_one_give(policy, pictures, prompts, temperature: float) -> None:
    draws = draws_of(16, temperature)
    together = answers(Decoder(policy), pictures, prompts, draws)
    alone = [answers(Decoder(policy), [pictures[i]], [prompts[i]], [draws[i]])[0] for i in range(16)]
    assert together == alone


def test_other_seeds_give_other_text_and_the_same_seed_the_same(policy, pictures, prompts) -> None:
    def draw(seed: int) -> list[tuple]:
        return answers(Decoder(policy), pictures, prompts, [Draw(1.0, 1.0, (seed, i)) for i in range(16)])

    assert draw(0) == draw(0)
    assert draw(0) != draw(1)


def test_forks_of_a_prompt_give_what_the_prompt_alone_gives(policy, pictures, prompts) -> None:
    decoder = Decoder(policy)
    starts = start_prefixes(decoder, pictures[:3], prompts[:3])
    before = [[slab.clone() for slab in start.kv] for start in starts]
    which, draws = [2, 0, 0, 1], [GREEDY, GREEDY, Draw(0.9, 0.9, ("a",)), GREEDY]
    completions = answer(decoder, [Row(starts[i], draw, ANSWER, LIMIT) for i, draw in zip(which, draws, strict=True)])
    alone = [answers(decoder, [pictures[i]], [prompts[i]], [d])[0] for i, d in zip(which, draws, strict=True)]
    assert bare(completions) == alone
    assert all(same(start.kv, kv, 0) for start, kv in zip(starts, before, strict=True)), "a fork changed its source"


def test_sentence_by_sentence_from_the_cache_is_the_whole_answer(policy, pictures, prompts) -> None:
    decoder = Decoder(policy)
    whole = answers(decoder, pictures, prompts, [GREEDY] * 16)
    at = dict(enumerate(start_prefixes(decoder, pictures, prompts)))
    prefilled = decoder.counters["prefill_tokens"]
    tokens: list[list[int]] = [[] for _ in range(16)]
    texts: list[list[str]] = [[] for _ in range(16)]
    while at:
        completions = answer(decoder, [Row(prefix, GREEDY, SENTENCE, 40) for prefix in at.values()])
        for row, completion in zip(list(at), completions, strict=True):
            tokens[row] += completion.tokens
            texts[row].append(completion.text)
            assert len(split_sentences(completion.text)) == 1
            at[row] = completion.span.prefix()
        at = {
            row: prefix
            for (row, prefix), completion in zip(at.items(), completions, strict=True)
            if not completion.ended
        }
    assert [tuple(row) for row in tokens] == [row for row, *_ in whole]
    assert [[s.text for s in split_sentences(text)] for _, text, *_ in whole] == texts
    assert decoder.counters["prefill_tokens"] == prefilled, "a step prefilled again"
    assert decoder.counters["vision_encodes"] == 32, "an image was encoded more than once a start"


def test_logits_and_states_after_cut_sentences_are_those_of_a_fresh_prefill(
    policy, pictures, prompts, monkeypatch
) -> None:
    decoder = Decoder(policy, state_layer=-1)
    at, written = start_prefixes(decoder, pictures[:4], prompts[:4]), [()] * 4
    for step in range(3):
        completions = answer(decoder, [
            Row(at[i // 3], Draw(0.0 if i % 3 == 0 else 1.3, 1.0, ("cut", step, i)), SENTENCE, 30) for i in range(12)
        ])  # fmt: skip
        assert any(completion.drawn > len(completion.tokens) for completion in completions), "nothing was cut"
        chosen = [completions[3 * row + (row + step) % 3] for row in range(4)]
        written = [before + completion.tokens for before, completion in zip(written, chosen, strict=True)]
        at = [completion.span.prefix() for completion in chosen]
    states = [read.state for read in decoder.read([(prefix, ()) for prefix in at], layer=-1, keep=False)]
    logits = logits_of_a_step(monkeypatch, decoder, at)
    for row, completion in enumerate(chosen):
        expected, state = plain(policy, pictures[row], prompts[row], written[row])
        assert torch.allclose(logits[row], expected, atol=2e-4), (logits[row] - expected).abs().max()
        assert torch.allclose(states[row], state, atol=1e-4)
        assert completion.span.state is None or torch.allclose(completion.span.state, state, atol=1e-4)
    assert any(completion.span.state is not None for completion in chosen), (
        "no state was kept while a sentence was drawn"
    )


def logits_of_a_step(monkeypatch, decoder: Decoder, at: list[KVPrefix]) -> torch.Tensor:
    """[B, V]: the next step's logits before any rule, in order of the prefixes."""
    seen: list[torch.Tensor] = []
    ruled = TokenTexts.ruled
    with monkeypatch.context() as patch:
        patch.setattr(
            TokenTexts, "ruled", lambda self, logits, *rest: seen.append(logits.clone()) or ruled(self, logits, *rest)
        )
        answer(decoder, [Row(prefix, GREEDY, ANSWER, 1) for prefix in at])
    (logits,) = seen
    return logits


def test_a_sentence_is_cut_where_the_splitter_ends_it(policy, pictures, prompts) -> None:
    decoder = Decoder(policy)
    starts = start_prefixes(decoder, pictures, prompts)
    completions = answer(decoder, [Row(s, Draw(0.8, 1.0, ("sentence", i)), SENTENCE, 40) for i, s in enumerate(starts)])
    for completion in completions:
        assert [s.text for s in split_sentences(completion.text)] == [completion.text]
        assert decoder.token_texts.text(completion.tokens).strip() == completion.text
        assert completion.text.endswith(".") or completion.drawn == 40
        # A token of look-ahead proves that the sentence is finished, and is not kept.
        assert completion.ended or completion.drawn == 40 or completion.drawn > len(completion.tokens)


def test_an_empty_answer_can_be_continued(policy, pictures, prompts, monkeypatch) -> None:
    """A row that kept nothing ends at the prefix where it started."""
    decoder = Decoder(policy)
    (start,) = start_prefixes(decoder, pictures[:1], prompts[:1])
    (end,) = policy.end_ids
    with monkeypatch.context() as patch:
        patch.setattr(batch, "draw_tokens", lambda logits, *rest: torch.full((len(logits),), end))
        (nothing,) = answer(decoder, [Row(start, GREEDY, SENTENCE, 9)])
    assert (nothing.tokens, nothing.text, nothing.ended, nothing.drawn) == ((), "", True, 1)
    assert nothing.span.prefix() is start
    rows = [Row(prefix, GREEDY, ANSWER, LIMIT) for prefix in (nothing.span.prefix(), start)]
    first, second = bare(answer(decoder, rows))
    assert first == second


def test_from_any_sentence_of_a_whole_answer_it_goes_on_as_if_read_again(policy, pictures, prompts) -> None:
    decoder = Decoder(policy, state_layer=-1)
    starts = start_prefixes(decoder, pictures[:4], prompts[:4])
    completions = answer(decoder, [Row(s, Draw(0.7, 0.9, ("split", i)), ANSWER, LIMIT) for i, s in enumerate(starts)])
    checked = 0
    for i, completion in enumerate(completions):
        whole = Candidate(completion.text, 0.7, completion.ended, completion.drawn, completion.span)
        sentences = sentences_of(whole, decoder.token_texts.text)
        assert [s.text for s in sentences] == [s.text for s in split_sentences(completion.text)]
        assert [s.ended for s in sentences] == [False] * (len(sentences) - 1) + [True]
        for sentence in sentences:
            span = sentence.handle
            again = decoder.read([(starts[i], span.tokens)], layer=-1)[0]
            assert same(span.prefix().full_kv(), again.full_kv(), 1e-4)
            if span.state is not None:  # kept as the answer was drawn, at every token that may end a sentence
                assert torch.allclose(span.state, again.state, atol=1e-4)
                checked += 1
            rows = [Row(prefix, Draw(0.9, 0.9, ("on", i)), SENTENCE, 20) for prefix in (span.prefix(), again)]
            first, second = bare(answer(decoder, rows))
            assert first == second
    assert checked > 8


# Rows come and go


@pytest.mark.parametrize("regroup_threshold", [0.25, 0.5, 0.9])
@pytest.mark.parametrize(
    "order", [range(16), range(15, -1, -1), [*range(0, 16, 3), *range(1, 16, 3), *range(2, 16, 3)]]
)
def test_rows_that_leave_and_join_give_the_same(policy, pictures, prompts, regroup_threshold: float, order) -> None:
    expected = answers(Decoder(policy), pictures, prompts, draws_of(16))
    decoder, draws = Decoder(policy, regroup_threshold=regroup_threshold), draws_of(16)
    starts, waiting, completions = start_prefixes(decoder, pictures, prompts), list(order), {}
    sizes = set()
    while len(completions) < 16:
        # Two new rows whenever some finish, while others are still being decoded.
        decoder.add([Row(starts[i], draws[i], ANSWER, LIMIT, owner=i) for i in waiting[:2]])
        waiting = waiting[2:]
        completions |= {row.owner: completion for row, completion in decoder.advance()}
        sizes.add(len(decoder._batch.active))
    assert bare([completions[i] for i in range(16)]) == expected
    assert decoder.idle
    assert regroup_threshold < 0.9 or len(sizes) > 1, "rows were never decoded beside others that had begun earlier"


def test_kinds_of_rows_share_a_batch(policy, pictures, prompts) -> None:
    decoder = Decoder(policy)
    starts = start_prefixes(decoder, pictures[:6], prompts[:6])
    kinds = [(SENTENCE, 40), (ANSWER, 90), ("dog", 50), (ANSWER, 3), (SENTENCE, 2), ("zebra", 10)]
    rows = [
        Row(start, Draw(0.5 * (i % 2), 0.9, ("k", i)), until, limit, keep=i % 3 > 0)
        for i, (start, (until, limit)) in enumerate(zip(starts, kinds, strict=True))
    ]
    together = answer(decoder, rows)
    assert bare(together) == [bare(answer(decoder, [row]))[0] for row in rows]
    assert [completion.span is not None for completion in together] == [row.keep for row in rows]


def test_work_is_counted_and_none_is_done_for_nothing(policy, pictures, prompts) -> None:
    decoder = Decoder(policy)
    starts = start_prefixes(decoder, pictures[:5], prompts[:5])
    completions = answer(decoder, [Row(start, GREEDY, ANSWER, LIMIT) for start in starts])
    counters = decoder.counters
    assert counters["vision_encodes"] == 5
    assert counters["prefill_tokens"] == int(policy.inputs(pictures[:5], prompts[:5])["attention_mask"].sum())
    assert counters["decode_tokens"] == sum(completion.drawn for completion in completions)
    assert counters["forwards"] == 1 + max(completion.drawn for completion in completions), (
        "a forward after all rows were finished"
    )
    before = dict(counters)
    assert (decoder.idle, decoder.advance(), answer(decoder, []), decoder.start([], [])) == (True, [], [], [])
    assert dict(counters) == before


def test_regrouping_more_often_takes_fewer_forwards(policy, pictures, prompts) -> None:
    def forwards(regroup_threshold: float) -> int:
        decoder, waiting, active = Decoder(policy, regroup_threshold=regroup_threshold), draws_of(16), 0
        starts = start_prefixes(decoder, pictures, prompts)
        while waiting or not decoder.idle:
            while waiting and active < 6:
                decoder.add([Row(starts[len(waiting) - 1], waiting.pop(), ANSWER, LIMIT)])
                active += 1
            active -= len(decoder.advance())
        return decoder.counters["forwards"]

    assert forwards(0.9) < forwards(0.5) < forwards(0.0)


def test_nothing_can_not_be_read(policy, pictures, prompts) -> None:
    (start,) = start_prefixes(decoder := Decoder(policy), pictures[:1], prompts[:1])
    with pytest.raises(ValueError, match="at least one token for every prefix"):
        decoder.read([(start, (5,)), (start, ())])
