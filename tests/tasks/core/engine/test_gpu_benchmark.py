"""The GPU benchmark does every stage's work, states what it measures by, and stops when its time is used up; here on a CPU."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from benchmarks.gpu import NEEDS, Measured, main, measure, page
from benchmarks.gpu_measures import Clock, DecodeMeter, Memory, copy_bandwidth
from benchmarks.gpu_models import POLICIES, PROMPT, SIZES, build_policy, build_scorer, words_tokenizer
from benchmarks.gpu_photographs import photographs
from benchmarks.gpu_stages import STAGES, Outcome
from tasks.core.engine.decoder import Decoder
from tasks.core.engine.scheduler import Job, SearchScheduler
from tasks.core.text import split_sentences
from tasks.models.engine import whole_answers

import transformers as hf  # isort: skip  # after torchvision's operators

TINY = SIZES["tiny"]


@pytest.fixture(scope="module", params=list(POLICIES))
def policy(request: pytest.FixtureRequest):
    torch.set_num_threads(1)
    return build_policy(request.param, TINY, "cpu", torch.float32)


def answers(policy, count: int, tokens: int):
    pictures = photographs(count, TINY.images)
    scheduler = SearchScheduler(Decoder(policy), in_flight=count, top_p=0.9)
    jobs = [
        Job(i, lambda i=i: pictures[i], PROMPT, whole_answers((0.5, 0.7, 0.9), tokens), ("t", i)) for i in range(count)
    ]
    return [row.proposal for _, result in scheduler.run(jobs) for row in result.trace]


def test_photographs_are_seeded_and_have_most_power_at_low_frequencies() -> None:
    first, second = photographs(2, (128, 96))
    assert first.size == (128, 96) and first.mode == "RGB"
    assert np.array_equal(first, photographs(1, (128, 96))[0]) and not np.array_equal(first, second)
    power = np.abs(np.fft.fft2(np.asarray(first.convert("L"), dtype=float)))[1:48, 1:48] ** 2
    assert power[:6, :6].mean() > 20 * power[24:, 24:].mean()


def test_random_weights_write_sentences_of_ordinary_length(policy) -> None:
    texts = answers(policy, 4, 200)
    sentences = [sentence.text for text in texts for sentence in split_sentences(text.text)]
    words = np.mean([len(text.split()) for text in sentences])
    assert 4 < words < 60 and any(text.ended for text in texts) and len(set(sentences)) > 10
    assert not any("<" in text for text in sentences)


def test_the_image_reaches_the_answer(policy) -> None:
    inputs = [policy.inputs([picture], [PROMPT]) for picture in photographs(2, TINY.images)]
    with torch.inference_mode():
        logits = [policy.model(**each).logits[0, -1] for each in inputs]
    assert not torch.allclose(*logits, atol=1e-3)


@pytest.mark.parametrize(("name", "billions"), [("LLaVA-NeXT", 7.57), ("Qwen2.5-VL", 8.29)])
def test_the_full_size_is_that_of_the_released_models(name: str, billions: float) -> None:
    config, _ = POLICIES[name](SIZES["7b"])
    with torch.device("meta"):
        model = hf.AutoModelForImageTextToText.from_config(config)
    assert sum(p.numel() for p in model.parameters()) / 1e9 == pytest.approx(billions, rel=0.005)


def test_a_photograph_costs_llava_next_as_many_tokens_as_it_does_released() -> None:
    _, processor = POLICIES["LLaVA-NeXT"](SIZES["7b"])
    (picture,) = photographs(1, (640, 480))
    ids = processor(text=["<image>"], images=[picture], return_tensors="pt")["input_ids"]
    # The whole image has 24 x 24 features; its tiles 48 x 48 without the rows that only pad, and a mark a row.
    assert (ids == processor.tokenizer.convert_tokens_to_ids("<image>")).sum() == 576 + 36 * (48 + 1)


def test_the_tokenizer_has_the_size_that_is_wanted() -> None:
    tok = words_tokenizer(400, "<image>")
    assert len(tok) == 400 and tok.unk_token_id not in tok(PROMPT)["input_ids"]
    texts = ["Fecaba. Cababa.", "Describe the following image."]
    assert [tok.decode(tok(text)["input_ids"]) for text in texts] == texts


def test_a_step_moves_the_weights_and_the_cache_once(policy) -> None:
    meter = DecodeMeter(policy.model, "cpu")
    with meter.watching():
        answers(policy, 2, 12)
    language = policy.model.model.language_model
    weights = sum(p.numel() for p in language.parameters()) - language.embed_tokens.weight.numel()
    weights += policy.model.lm_head.weight.numel()
    assert meter.weight_bytes == 4 * weights
    assert meter.token_bytes == 2 * 2 * 2 * 16 * 4  # keys and values, 2 layers, 2 heads of 16, float32
    assert len(meter.steps) >= 10
    columns = (np.array([moved for _, moved in meter.steps]) - meter.weight_bytes) / meter.token_bytes
    assert (columns == np.round(columns)).all() and (columns > 2 * 16).all()
    meter.steps = [(0.1, 1e9), (0.2, 1e9), (0.1, 3e9)]
    assert meter.share(2e10) == pytest.approx(0.5) and meter.step_seconds() == 0.1


def test_clock_and_memory_measure_something() -> None:
    memory, clock = Memory("cpu"), Clock("cpu")
    memory.restart()
    with clock.running():
        held = torch.ones(2**24)
    assert clock.seconds > 0 and memory.peak() > 2**26 * 0.9 and len(held)
    assert copy_bandwidth("cpu", repeats=2) > 1e8


def test_the_scorer_scores(policy) -> None:
    scorer = build_scorer(TINY, "cpu", torch.float32)
    vectors = scorer.embed_images(photographs(2, TINY.images)) @ scorer.embed_texts(["Fecaba.", "Cababa bababa."]).T
    assert len({round(float(value), 5) for value in vectors.ravel()}) == 4


@pytest.mark.slow
def test_every_stage_runs_on_every_model() -> None:
    rows, text = measure("tiny", 10, "cpu", list(POLICIES), list(STAGES))
    assert [(row.model, row.stage) for row in rows] == [(model, stage) for model in POLICIES for stage in STAGES]
    assert all(row.outcome and row.outcome.seconds > 0 and row.peak >= 0 for row in rows), text
    assert text.count("% of the bandwidth limit") == 2 and text.count("times as long as in rollout") == 4
    assert "Nothing was left out." in text
    assert [row.stage for row in rows if not row.computed] == ["score", "score"]  # a CLIP has no formula here


def test_what_there_was_no_time_for_is_printed() -> None:
    rows, text = measure("tiny", 0, "cpu", ["LLaVA-NeXT"], ["rollout", "score"])
    assert [row.outcome for row in rows] == [None, None]
    assert "Left out: LLaVA-NeXT, rollout (the time was used up); LLaVA-NeXT, score (needs rollout)." in text


def test_a_stage_without_what_it_needs_is_left_out() -> None:
    rows, _ = measure("tiny", 5, "cpu", ["Qwen2.5-VL"], ["score", "rollout"])
    assert rows[0].why == "needs rollout" and rows[1].outcome is not None
    assert set(NEEDS) | {"rollout"} == set(STAGES)


def test_a_failed_stage_loses_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(bench):
        raise RuntimeError("no such\nkernel")

    monkeypatch.setitem(STAGES, "score", fails)
    with pytest.raises(SystemExit):
        main(["--size", "tiny", "--models", "LLaVA-NeXT", "--stages", "rollout", "score", "--device", "cpu"])
    printed = capsys.readouterr().out
    assert "| LLaVA-NeXT | rollout | 2 of 2 images |" in printed
    assert "Left out: LLaVA-NeXT, score (failed: no such kernel)." in printed


def test_the_page_has_speed_and_peak() -> None:
    rows = [
        Measured("m", "s", Outcome("2 of 2 images", 0.5, 100, "note"), 2.0**30, computed)
        for computed in (2.0**31, None)
    ]
    text = page(rows, ["device"])
    assert "| m | s | 2 of 2 images | 0.50 | 200 | 1.00 | 2.00 | 0.50 | note |" in text
    assert "| m | s | 2 of 2 images | 0.50 | 200 | 1.00 | not computed |  | note |" in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_full_size_without_a_gpu_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([])
    assert "wants a GPU, and torch sees none" in capsys.readouterr().err


def test_half_a_rotary_dimension_is_shared_out() -> None:
    for size in SIZES.values():
        config, _ = POLICIES["Qwen2.5-VL"](size)
        text = config.get_text_config()
        head = text.hidden_size // text.num_attention_heads
        assert sum(text.rope_parameters["mrope_section"]) == head // 2 and math.isfinite(head)
