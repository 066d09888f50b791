"""Every architecture decodes as `generate` does, and continues from anywhere as if everything were read again."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image

from tasks.core.engine.decoder import Decoder
from tasks.core.engine.fallback import GenerateDecoder, open_decoder
from tasks.core.engine.kv_prefix import KVPrefix
from tasks.core.engine.prompts import Prompts
from tasks.core.engine.rows import Completion, Draw, Row, TokenTexts
from tasks.core.models.policy import Policy
from tasks.core.search.requests import ANSWER, SENTENCE
from tests.support.plain import answer, plain, same
from tests.support.tiny_models import ARCHITECTURES, MORE_ARCHITECTURES, tiny

GREEDY = Draw(0.0, 1.0, ())
SIZES = [(56, 40), (28, 60), (80, 80), (100, 30)]  # tiled differently
PROMPTS = ["Describe the image .", "What is there ?", "There is a dog on the left .", "A dog and a cat ."]
LIMIT = 25


def noise(seed: int, width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


IMAGES = [noise(seed, *size) for seed, size in enumerate(SIZES)]


# Each of the last two has something in its cache that the others don't: convolution states alone, layers of several widths.
KINDS = (*ARCHITECTURES, "lfm2_vl", "gemma4")
EVERY = ARCHITECTURES + MORE_ARCHITECTURES


@pytest.fixture(scope="module", params=KINDS)
def own(request) -> Policy:
    torch.set_num_threads(1)
    return tiny(request.param)


@pytest.fixture(scope="module", params=EVERY)
def every(request) -> Policy:
    torch.set_num_threads(1)
    return tiny(request.param)


def sentences(starts: list, step: int) -> list[Row]:
    """Three candidates after each prefix, the first of them greedy."""
    draws = [
        Draw(temperature, 0.9, (step, i, temperature)) for i in range(len(starts)) for temperature in (0, 0.7, 1.2)
    ]
    return [Row(starts[i // 3], draw, SENTENCE, LIMIT) for i, draw in enumerate(draws)]


def bare(completions: list[Completion]) -> list[tuple]:
    return [(completion.tokens, completion.text, completion.ended, completion.drawn) for completion in completions]


def two_steps(decoder: Decoder | GenerateDecoder) -> tuple[list[Completion], list[Completion]]:
    """Sentences of all images, then sentences after different ones of them."""
    first = answer(decoder, sentences([prompt.prefix for prompt in decoder.start(IMAGES, PROMPTS)], 0))
    return first, answer(decoder, sentences([first[3 * i + (i + 1) % 3].span.prefix() for i in range(4)], 1))


def test_greedy_is_what_generate_gives_token_for_token(every) -> None:
    own = every
    decoder = open_decoder(own)
    assert isinstance(decoder, Decoder), "fell back to reading everything again"
    inputs = own.inputs(IMAGES, PROMPTS)
    assert (inputs["attention_mask"][:, 0] == 0).any(), "nothing is padded on the left"
    with torch.inference_mode():
        out = own.model.generate(**inputs, do_sample=False, max_new_tokens=LIMIT)
    expected = []
    for row in out[:, inputs["input_ids"].shape[1] :].tolist():
        end = next((at for at, token in enumerate(row) if token in own.end_ids), len(row))
        expected.append(tuple(row[:end]))
    completions = answer(
        decoder, [Row(prompt.prefix, GREEDY, ANSWER, LIMIT) for prompt in decoder.start(IMAGES, PROMPTS)]
    )
    assert [completion.tokens for completion in completions] == expected


def test_forked_and_cut_sentences_leave_what_a_plain_forward_leaves(every, monkeypatch) -> None:
    own = every
    decoder = Decoder(own)
    first, second = two_steps(decoder)
    cut = any(c.drawn > len(c.tokens) + c.ended for c in [*first, *second])
    assert cut or own.digest.endswith("_tied"), "nothing was cut"  # a random tied output hardly ever draws a full stop
    assert any(not completion.ended for completion in first), "no sentence was continued"
    chosen = [3 * i + (2 * i) % 3 for i in range(4)]
    prefixes = [second[at].span.prefix() for at in chosen]
    states = [read.state for read in decoder.read([(prefix, ()) for prefix in prefixes], layer=-1, keep=False)]
    logits = next_logits(monkeypatch, decoder, prefixes)
    for i, at in enumerate(chosen):
        tokens = first[3 * i + (i + 1) % 3].tokens + second[at].tokens
        if getattr(own.model.config, "image_token_id", None) in tokens:
            continue  # a plain forward would want an image for it
        expected, state = plain(own, IMAGES[i], PROMPTS[i], tokens)
        assert torch.allclose(states[i], state, atol=1e-4), (states[i] - state).abs().max()
        assert torch.allclose(logits[i], expected, atol=1e-4), (logits[i] - expected).abs().max()


def next_logits(monkeypatch, decoder: Decoder, prefixes: list[KVPrefix]) -> torch.Tensor:
    """[B, V]: a step's logits before any rule, such as the ban of placeholders, in order of the prefixes."""
    seen: list[torch.Tensor] = []
    ruled = TokenTexts.ruled
    monkeypatch.setattr(
        TokenTexts, "ruled", lambda self, logits, *rest: seen.append(logits.clone()) or ruled(self, logits, *rest)
    )
    answer(decoder, [Row(prefix, GREEDY, ANSWER, 1) for prefix in prefixes])
    (logits,) = seen
    return logits


def test_tokens_that_are_read_are_as_if_they_had_been_decoded(own) -> None:
    decoder = Decoder(own)
    starts = [prompt.prefix for prompt in decoder.start(IMAGES, PROMPTS)] * 3
    completions = answer(decoder, [Row(start, Draw(1.0, 1.0, (i,)), ANSWER, 8 + i) for i, start in enumerate(starts)])
    some = [i for i, completion in enumerate(completions) if completion.tokens]
    assert len({len(completions[i].tokens) for i in some}) > 1
    read = decoder.read([(starts[i], completions[i].tokens) for i in some], layer=-1)
    for i, prefix in zip(some, read, strict=True):
        completion = completions[i]
        (drawn,) = decoder.settled([completion.span.prefix()])
        assert (prefix.length, prefix.pending, prefix.next_position) == (
            drawn.length,
            drawn.pending,
            drawn.next_position,
        )
        assert torch.equal(prefix.position, drawn.position)
        assert same(prefix.full_kv(), drawn.full_kv(), 1e-4)
        assert same(prefix.recurrent, drawn.recurrent, 1e-4)
        assert torch.allclose(prefix.state, plain(own, IMAGES[i % 4], PROMPTS[i % 4], completion.tokens)[1], atol=1e-4)


def test_another_text_after_the_image_s_prefix_is_a_fresh_prompt(own) -> None:
    decoder, prompts = Decoder(own), Prompts(own, answer_next=True)
    read = decoder.start(IMAGES, PROMPTS)
    items, pairs = [], list(product(range(4), range(4)))
    for i, j in pairs:
        prefix, tail = prompts.image_prefix(read[i], PROMPTS[i]), prompts.tail(PROMPTS[j], PROMPTS[i])
        if prefix is None or tail is None:
            pytest.skip("its prompts can't be divided after the image")
        assert len(tail) < len(read[j].ids) - 1, "the image is read again"
        items.append((prefix, tail))
    before = decoder.counters["vision_encodes"], decoder.counters["prefill_tokens"]
    read_after = decoder.read(items, layer=-1)
    for (i, j), prefix in zip(pairs, read_after, strict=True):
        assert torch.allclose(prefix.state, plain(own, IMAGES[i], PROMPTS[j], ())[1], atol=1e-4)
        assert prefix.pending == read[j].ids[-1]
    completions = answer(decoder, [Row(prefix, GREEDY, ANSWER, 10) for prefix in read_after])
    assert (decoder.counters["vision_encodes"], decoder.counters["prefill_tokens"]) == before
    fresh = decoder.start([IMAGES[i] for i, _ in pairs], [PROMPTS[j] for _, j in pairs])
    assert bare(completions) == bare(answer(decoder, [Row(prompt.prefix, GREEDY, ANSWER, 10) for prompt in fresh]))


def test_a_batch_of_sampled_rows_gives_what_each_gives_alone(own) -> None:
    first, second = two_steps(Decoder(own))
    decoder = Decoder(own)
    starts = [decoder.start([image], [prompt])[0].prefix for image, prompt in zip(IMAGES, PROMPTS, strict=True)]
    alone = [answer(decoder, [row])[0] for row in sentences(starts, 0)]
    assert bare(alone) == bare(first)
    chosen = [alone[3 * i + (i + 1) % 3].span.prefix() for i in range(4)]
    assert bare([answer(decoder, [row])[0] for row in sentences(chosen, 1)]) == bare(second)


def test_the_fallback_gives_the_same_text_and_the_same_states(own) -> None:
    decoder, fallback = Decoder(own), GenerateDecoder(own, "asked for")
    mine, theirs = two_steps(decoder), two_steps(fallback)
    assert [bare(completions) for completions in mine] == [bare(completions) for completions in theirs]
    assert len({completion.tokens for completion in mine[1]}) > 4
    for more in ((), (9, 10, 11)):
        here = decoder.read([(completion.span.prefix(), more) for completion in mine[1]], layer=-1, keep=False)
        there = fallback.read([(completion.span.prefix(), more) for completion in theirs[1]], layer=-1, keep=False)
        for mine_read, their_read in zip(here, there, strict=True):
            assert torch.allclose(mine_read.state, their_read.state, atol=1e-4)
