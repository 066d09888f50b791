"""Where a cache can't be forked everything is read again by `generate`, with a warning, and with the same results."""

from __future__ import annotations

from typing import Any

import pytest
from transformers.cache_utils import DynamicCache, DynamicSlidingWindowLayer

from tasks.core.engine.decoder import Decoder, check_forkable
from tasks.core.engine.fallback import GenerateDecoder, open_decoder
from tasks.core.engine.layers import CannotFork, Layers, Layout
from tasks.core.engine.rows import Completion, Draw, Row
from tasks.core.engine.scheduler import Job, SearchScheduler
from tasks.core.models.policy import Policy
from tasks.core.search.contract import SearchResult, Settings, Task
from tasks.core.search.registry import find
from tasks.core.search.requests import ANSWER, SENTENCE
from tests.support.plain import answer
from tests.support.tiny_models import tiny


def bare(completions: list[Completion]) -> list[tuple]:
    return [(completion.tokens, completion.text, completion.ended, completion.drawn) for completion in completions]


def kinds(decoder: Any, pictures, prompts) -> list[tuple]:
    """Rows of all kinds and limits, and what follows them."""
    starts = [prompt.prefix for prompt in decoder.start(pictures[:6], prompts[:6])]
    limits = [(SENTENCE, 40), (ANSWER, 60), ("dog", 50), (ANSWER, 3), (SENTENCE, 2), (SENTENCE, 40)]
    completions = answer(decoder, [
        Row(start, Draw(0.4 * (i % 3), 0.9, ("k", i)), until, limit)
        for i, (start, (until, limit)) in enumerate(zip(starts, limits, strict=True))
    ])  # fmt: skip
    read = decoder.read([(completion.span.prefix(), (5 + i, 7)) for i, completion in enumerate(completions)])
    more = answer(decoder, [Row(prefix, Draw(0.7, 0.9, ("m", i)), SENTENCE, 20) for i, prefix in enumerate(read)])
    return bare(completions) + bare(more)


def test_it_gives_what_the_decoder_gives(policy, pictures, prompts) -> None:
    expected = kinds(Decoder(policy), pictures, prompts)
    assert kinds(GenerateDecoder(policy, "asked for"), pictures, prompts) == expected
    assert len(set(expected)) > 6


def test_rows_of_many_calls_are_answered_and_counted(policy, pictures, prompts) -> None:
    decoder = GenerateDecoder(policy, "asked for")
    starts = [prompt.prefix for prompt in decoder.start(pictures[:3], prompts[:3])]
    assert (decoder.idle, decoder.advance(), decoder.counters) == (True, [], {})
    decoder.add([Row(start, Draw(0.0, 1.0, ()), ANSWER, 30, owner=i) for i, start in enumerate(starts)])
    decoder.add([Row(starts[0], Draw(0.9, 1.0, ("b",)), ANSWER, 30, owner="more")])
    assert not decoder.idle
    completions = {row.owner: completion for row, completion in decoder.advance()}
    assert set(completions) == {0, 1, 2, "more"} and decoder.idle
    assert decoder.counters["vision_encodes"] == 3, "two rows after one prompt read it once"
    assert decoder.counters["decode_tokens"] == sum(completion.drawn for completion in completions.values())


@pytest.mark.parametrize("name", ["visvm", "clip_prm", "best_of_n", "stage_beam", "vimar"])
@pytest.mark.parametrize("architecture", ["demo", "qwen2_vl", "mllama"])
def test_a_search_finds_the_same(policy, pictures, prompts, name: str, architecture: str) -> None:
    own = policy if architecture == "demo" else tiny(architecture)
    settings = Settings(
        (0.0, 0.6, 1.0), margin=0.2, refine_below=0.5, max_sentences=3, max_sentence_tokens=24, max_new_tokens=40
    )

    def results(decoder: Any) -> dict[int, SearchResult]:
        scheduler = SearchScheduler(decoder, in_flight=3, top_p=0.9, scores=ByLength(), values=ByLength())
        small = [picture.resize(size) for picture, size in zip(pictures, [(56, 40), (28, 60), (80, 80)], strict=False)]
        return dict(scheduler.run(
            Job(i, lambda i=i: small[i], prompts[i], find(name).search(Task(prompts[i], settings)), ("f", i))
            for i in range(3)
        ))  # fmt: skip

    assert results(GenerateDecoder(own, "asked for")) == results(Decoder(own))


class ByLength:
    """Judges a text by its length."""

    def score(self, images: Any, items: Any) -> list[float | None]:
        return [len(text) / 40 for _, text in items]

    def value(self, images: Any, items: Any) -> list[float]:
        return [len(before) / 80 + len(candidate.text) / 40 for _, before, candidate in items]

    def forget(self, job: Any) -> None:
        pass

    def is_cut(self, text: str) -> bool:
        return False


# Who needs it


class Bare:
    """A model without an inner one that gives hidden states."""

    def __init__(self, model: Any) -> None:
        self.generation_config, self.config = model.generation_config, model.config
        self.get_input_embeddings = model.get_input_embeddings


def test_a_model_without_an_inner_one_falls_back_and_says_so(policy, caplog) -> None:
    odd = Policy(Bare(policy.model), policy.processor, "odd")
    with pytest.raises(CannotFork, match="Bare has no inner model that gives hidden states"):
        check_forkable(odd)
    assert isinstance(open_decoder(odd, kv_token_budget=1000), GenerateDecoder)
    assert "Bare has no inner model" in caplog.text and "each candidate does so by itself, in generate" in caplog.text
    assert isinstance(open_decoder(policy, kv_token_budget=1000), Decoder)


def test_a_model_that_attends_in_chunks_falls_back(policy, monkeypatch) -> None:
    text = policy.model.config.get_text_config()
    monkeypatch.setattr(text, "attention_chunk_size", 8, raising=False)
    monkeypatch.setattr(text, "layer_types", ["chunked_attention"] * text.num_hidden_layers, raising=False)
    with pytest.raises(CannotFork, match="attends in chunks"):
        check_forkable(policy)
    assert isinstance(open_decoder(policy), GenerateDecoder)


def test_a_cache_that_turns_out_to_be_another_than_the_configuration_promises_is_refused() -> None:
    cache = DynamicCache()
    cache.layers = [DynamicSlidingWindowLayer(sliding_window=4)]
    with pytest.raises(
        CannotFork, match="layer 0 of its cache is a DynamicSlidingWindowLayer, wanted one of kind full"
    ):
        Layout.of(cache, Layers(("full",), ("full_attention",), None))
