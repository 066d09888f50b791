"""Value models as judges: the fast ways give what whole forwards give, and each image is read once."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tasks.core.engine import guides
from tasks.core.engine.architecture import CannotFork
from tasks.core.engine.decoder import Decoder
from tasks.core.engine.fallback import GenerateDecoder
from tasks.core.engine.guides import StateValues, TurnValues, WholeTurnValues, turn_values
from tasks.core.engine.prompts import Prompts
from tasks.core.engine.rows import Draw, Row, sentences_of
from tasks.core.models.policy import load_policy
from tasks.core.models.sentence_scores import Cosines
from tasks.core.models.value import StateValue, ValueModel, ValueSpec
from tasks.core.search.requests import ANSWER, SENTENCE, Candidate
from tests.support.paths import DEMO
from tests.support.plain import answer, plain
from tests.support.tiny_models import tiny

TEXTS = ["There is a dog.", "A cat.", "There is a dog on the left and two cats lie by it.", "A man walks .", ""]
SIZES = [(56, 40), (28, 60), (80, 80), (100, 30)]
Items = list[tuple[Any, str, Candidate]]


def candidate(text: str, handle: Any = None) -> Candidate:
    return Candidate(text, 0.0, ended=False, drawn=1, handle=handle)


def value_model(name: str, state: str = "sentence", layer: int = -1) -> ValueModel:
    torch.set_num_threads(1)
    policy = load_policy(DEMO / "policy", digest="demo") if name == "demo" else tiny(name)
    return ValueModel(policy, ValueSpec("x", "frozen", layer, state))


def images_of(pictures) -> dict[Any, Image.Image]:
    return {i: picture.resize(size) for i, (picture, size) in enumerate(zip(pictures, SIZES, strict=False))}


ITEMS: Items = [(i, before, candidate(text)) for i in range(4) for before in ("", "There is a car .") for text in TEXTS]


@pytest.mark.parametrize(("state", "layer"), [("sentence", -1), ("prefix", -2)])
@pytest.mark.parametrize(
    "name",
    [
        "demo",
        "llava",
        "llava_next",
        "llava_onevision",
        "qwen2_vl",
        "qwen2_5_vl",
        "idefics3",
        "mllama",
        "qwen3_vl",
        "qwen3_5",
        "gemma3",
        "gemma4",
        "internvl",
    ],
)
def test_values_after_an_image_that_was_read_are_those_of_whole_turns(
    pictures, name: str, state: str, layer: int
) -> None:
    model, images, counters = value_model(name, state, layer), images_of(pictures), Counter()
    fast = turn_values(model, counters)
    assert isinstance(fast, TurnValues)
    estimates, whole = fast.value(images, ITEMS), WholeTurnValues(model, Counter()).value(images, ITEMS)
    assert np.allclose(estimates, whole, atol=1e-5), np.abs(np.array(estimates) - whole).max()
    different = len(
        {(i, f"{before} {item.text}".strip() if state == "prefix" else item.text) for i, before, item in ITEMS}
    )
    # A short window, or a state that fades, may leave no trace of what is further back.
    least = different // 3 if name in ("gemma3", "qwen3_5") else different
    assert len({round(number, 6) for number in whole}) >= least, "values that say nothing"


def test_an_image_is_read_once_and_a_text_about_it_once(pictures) -> None:
    model, images, counters = value_model("demo"), images_of(pictures), Counter()
    values = TurnValues(model, counters)
    first = values.value(images, ITEMS)
    assert values._decoder.counters["vision_encodes"] == 4
    read = counters["value_tokens"]
    whole = Counter()
    WholeTurnValues(model, whole).value(images, ITEMS)
    assert 0 < read < whole["value_tokens"] / 2
    assert values.value(images, ITEMS[::-1]) == first[::-1]
    assert counters["value_tokens"] == read, "read again what was known"
    more = values.value(images, [(0, "", candidate("One more dog."))])
    assert read < counters["value_tokens"] < read + 12
    values.forget(0)
    assert values.value(images, [(0, "", candidate("One more dog."))]) == pytest.approx(more, abs=1e-5)
    assert values._decoder.counters["vision_encodes"] == 5
    values.forget("never seen")


def test_values_do_not_depend_on_the_rest_of_the_batch(pictures) -> None:
    model, images = value_model("demo"), images_of(pictures)
    together = TurnValues(model, Counter()).value(images, ITEMS)
    values = TurnValues(model, Counter())
    assert [values.value(images, [item])[0] for item in ITEMS] == pytest.approx(together, abs=1e-5)


def test_a_backbone_that_can_not_be_forked_reads_whole_turns(pictures, monkeypatch, caplog) -> None:
    model = value_model("demo")

    def refuse(policy: Any) -> None:
        raise CannotFork("Mamba keeps its states")

    monkeypatch.setattr(guides, "Decoder", refuse)
    counters: Counter[str] = Counter()
    values = turn_values(model, counters)
    assert isinstance(values, WholeTurnValues)
    assert "Mamba keeps its states: each candidate's value reads the image again" in caplog.text
    assert values.value(images_of(pictures), ITEMS[:2]) and counters["value_tokens"] == model.tokens > 0


def test_a_template_that_puts_the_text_first_reads_whole_turns(monkeypatch) -> None:
    monkeypatch.setattr(Prompts, "tail", lambda *_: None)
    assert isinstance(turn_values(value_model("demo"), Counter()), WholeTurnValues)


# The policy's own states


def state_head(policy, layer: int) -> StateValue:
    generator = torch.Generator().manual_seed(1)
    width = policy.model.config.get_text_config().hidden_size
    head = StateValue.of(torch.randn(50, width, generator=generator), ValueSpec("x", "frozen", layer, "prefix"))
    torch.nn.init.normal_(head.net[2].weight, generator=generator)
    return head


@pytest.mark.parametrize(
    "name", ["demo", "llava_next", "qwen2_vl", "idefics3", "mllama", "qwen3_5", "gemma3", "gemma4"]
)
@pytest.mark.parametrize("layer", [-1, -2])
def test_values_of_states_are_the_head_s_on_a_plain_forward(policy, pictures, name: str, layer: int) -> None:
    own = policy if name == "demo" else tiny(name)
    head, images = state_head(own, layer), images_of(pictures)
    estimates = []
    for decoder in (Decoder(own, state_layer=layer), GenerateDecoder(own, "asked for")):
        items, token_lists = candidates_of(decoder, images)
        expected = [
            float(head(plain(own, images[i], "Go.", tokens, layer)[1][None]).detach())
            for (i, *_), tokens in zip(items, token_lists, strict=True)
        ]
        values = StateValues(head, decoder).value(images, items)
        assert values == pytest.approx(expected, abs=1e-4)
        assert len({round(number, 5) for number in values}) > 6
        estimates.append(values)
    assert estimates[0] == pytest.approx(estimates[1], abs=1e-4)


def candidates_of(decoder: Any, images: dict[Any, Image.Image]) -> tuple[Items, list[tuple[int, ...]]]:
    """Sentences, some cut at their limit, sentences of whole answers, and all tokens up to the end of each."""
    starts = [prompt.prefix for prompt in decoder.start(list(images.values()), ["Go."] * len(images))]
    items, token_lists = [], []
    for until, limit in ((SENTENCE, 30), (SENTENCE, 3), (ANSWER, 40)):
        rows = [Row(start, Draw(0.8, 0.9, ("v", until, i)), until, limit) for i, start in enumerate(starts)]
        for i, completion in enumerate(answer(decoder, rows)):
            whole = Candidate(completion.text, 0.8, completion.ended, completion.drawn, completion.span)
            for part in sentences_of(whole, decoder.token_texts.text) if until == ANSWER else [whole]:
                items.append((i, "", part))
                token_lists.append(part.handle.tokens)
    return items, token_lists


def test_states_that_were_kept_while_drawing_are_not_read_again(policy, pictures) -> None:
    decoder, images = Decoder(policy, state_layer=-1), images_of(pictures)
    items, _ = candidates_of(decoder, images)
    with_state = [item for item in items if item[2].handle.state is not None]
    assert len(items) > len(with_state) > len(items) // 2
    before = decoder.counters["forwards"]
    values = StateValues(state_head(policy, -1), decoder)
    estimates = values.value(images, with_state)
    assert decoder.counters["forwards"] == before
    assert values.value(images, items)[0] == pytest.approx(estimates[0], abs=1e-5)
    assert decoder.counters["forwards"] == before + 1
    assert decoder.counters["read_tokens"] == len(items) - len(with_state)


# The scorer


def test_each_image_and_each_text_is_embedded_once(scorer, pictures) -> None:
    counters: Counter[str] = Counter()
    images, scores = images_of(pictures), Cosines(scorer, counters)
    items = [(i, text) for i in range(4) for text in TEXTS[:4]]
    first = scores.score(images, items)
    assert (counters["images_embedded"], counters["texts_embedded"]) == (4, 4)
    assert scores.score(images, items[::-1]) == first[::-1]
    assert (counters["images_embedded"], counters["texts_embedded"]) == (4, 4)
    assert len({round(number, 5) for number in first}) == 16
    scores.forget(1)
    assert scores.score(images, items[4:5]) == pytest.approx(first[4:5], abs=1e-6)
    assert (counters["images_embedded"], counters["texts_embedded"]) == (5, 4)


def test_cosines_do_not_depend_on_the_rest_of_the_batch_or_on_the_cache(scorer, pictures) -> None:
    images = images_of(pictures)
    pairs = [(i, text) for i in range(4) for text in TEXTS[:4]]
    together = Cosines(scorer, Counter()).score(images, pairs)
    uncached = Cosines(scorer, Counter(), cache_size=1)
    assert [uncached.score(images, [pair])[0] for pair in pairs] == pytest.approx(together, abs=1e-6)
    assert len(uncached._texts) == 1
    assert uncached.is_cut("dog " * 200) and not uncached.is_cut("A dog.")
