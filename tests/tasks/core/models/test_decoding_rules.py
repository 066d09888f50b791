"""Greedy decoding under a checkpoint's generation config is token for token what `generate` gives with it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from PIL import Image

from tasks.core.engine.decoder import Decoder
from tasks.core.engine.fallback import GenerateDecoder
from tasks.core.engine.outside import generate_answers
from tasks.core.engine.rows import Draw, Row, TokenTexts
from tasks.core.models.policy import Policy
from tasks.core.search.requests import ANSWER, SENTENCE
from tests.support.demo_models import PROMPTS
from tests.support.plain import answer
from tests.support.tiny_models import tiny

LIMIT = 24
GREEDY = Draw(0.0, 1.0, ())


def images() -> list[Image.Image]:
    draw = torch.Generator().manual_seed(0)
    sizes = [(28, 28), (60, 28), (90, 90)]
    return [
        Image.fromarray(torch.randint(0, 255, (h, w, 3), generator=draw, dtype=torch.uint8).numpy()) for w, h in sizes
    ]


def with_fields(policy: Policy, **fields: Any) -> Policy:
    """The policy under another generation config; it shares the weights."""
    model = copy.copy(policy.model)
    model.generation_config = copy.deepcopy(policy.model.generation_config)
    for name, value in fields.items():
        setattr(model.generation_config, name, value)
    return Policy(model, policy.processor, policy.digest)


def fields_of(policy: Policy, kind: str) -> dict[str, Any]:
    """Fields that change the policy's own greedy answers."""
    free = generated(policy)
    second, bigram = free[0][1], free[1][:2]
    short = min(len(tokens) for tokens in free)
    length = policy.inputs(images()[:1], PROMPTS[:1])["input_ids"].shape[1]
    return {
        "repetition": {"repetition_penalty": 1.4},
        "suppressed": {"suppress_tokens": [second], "begin_suppress_tokens": [tokens[0] for tokens in free]},
        "words": {"bad_words_ids": [[free[0][0]], bigram], "no_repeat_ngram_size": 2},
        "lengths": {"min_new_tokens": short + 3, "min_length": length + short + 3},
        "ends": {"eos_token_id": [policy.tokenizer.eos_token_id, second]},
        "bias": {"sequence_bias": [[[second], -9.0], [bigram, -5.0]]},
        "all": {"repetition_penalty": 1.2, "no_repeat_ngram_size": 3, "suppress_tokens": [second], "min_new_tokens": 8},
    }[kind]


def generated(policy: Policy) -> list[list[int]]:
    """What `generate` gives with the policy's own generation config, prompt by prompt: nothing is padded."""
    answers = []
    for image, prompt in zip(images(), PROMPTS, strict=False):
        inputs = policy.inputs([image], [prompt])
        banned = [id_ for id_ in policy.banned_ids if id_ < policy.model.get_output_embeddings().weight.shape[0]]
        given = policy.model.generation_config.suppress_tokens or []
        out = policy.model.generate(
            **inputs,
            do_sample=False,
            max_new_tokens=LIMIT,
            pad_token_id=policy.pad_id,
            suppress_tokens=[*given, *banned],
        )
        tokens = out[0, inputs["input_ids"].shape[1] :].tolist()
        end = next((at for at, token in enumerate(tokens) if token in policy.end_ids), len(tokens))
        answers.append(tokens[:end])
    return answers


@pytest.mark.parametrize("kind", ["repetition", "suppressed", "words", "lengths", "ends", "bias", "all"])
@pytest.mark.parametrize("name", ["llava", "qwen2_vl"])
def test_greedy_answers_are_those_of_generate_in_engine_fallback_and_outside(name: str, kind: str) -> None:
    policy = with_fields(tiny(name), **fields_of(tiny(name), kind))
    expected = generated(policy)
    assert expected != generated(tiny(name)), "the fields change nothing"
    for decoder in (Decoder(policy), GenerateDecoder(policy, "a test")):
        prompts = decoder.start(images(), PROMPTS[:3])
        rows = [Row(prompt.prefix, GREEDY, ANSWER, LIMIT) for prompt in prompts]
        assert [list(row.tokens) for row in answer(decoder, rows)] == expected, type(decoder).__name__
    outside = generate_answers(
        policy, images(), PROMPTS[:3], method="beam", options={"num_beams": 1}, max_new_tokens=LIMIT
    )
    assert [list(row.tokens) for row in outside] == expected


def test_a_sentence_after_another_counts_the_tokens_before_it() -> None:
    policy = with_fields(tiny("llava"), repetition_penalty=1.4)
    for decoder in (Decoder(policy), GenerateDecoder(policy, "a test")):
        at = [prompt.prefix for prompt in decoder.start(images(), PROMPTS[:3])]
        whole = [list(row.tokens) for row in answer(decoder, [Row(prefix, GREEDY, ANSWER, LIMIT) for prefix in at])]
        first = answer(decoder, [Row(prefix, GREEDY, ANSWER, 5) for prefix in at])
        then = answer(decoder, [Row(row.span.prefix(), GREEDY, ANSWER, LIMIT - 5) for row in first])
        assert [[*a.tokens, *b.tokens] for a, b in zip(first, then, strict=True) if not a.ended] == [
            tokens for tokens, a in zip(whole, first, strict=True) if not a.ended
        ]
        assert not all(a.ended for a in first)


@pytest.mark.parametrize("name", ["llava", "qwen2_vl", "idefics3", "mllama"])
def test_no_sampler_draws_a_placeholder(name: str) -> None:
    policy = tiny(name)
    names = {policy.tokenizer.convert_ids_to_tokens(id_) for id_ in policy.banned_ids}
    assert policy.processor.image_token in names
    assert not names & {policy.tokenizer.eos_token, "<end_of_utterance>", "."}
    logits = torch.zeros(2, len(policy.tokenizer))
    logits[:, list(policy.banned_ids)] = 50.0
    ruled = TokenTexts(policy).ruled(logits, [], torch.ones(2))
    assert (ruled.softmax(-1)[:, list(policy.banned_ids)] == 0).all()


def test_qwens_frame_tokens_and_idefics_tiles_are_placeholders() -> None:
    text = {
        name: tiny(name).tokenizer.convert_ids_to_tokens(list(tiny(name).banned_ids))
        for name in ("qwen2_vl", "idefics3")
    }
    assert set(text["qwen2_vl"]) == {"<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"}
    assert {"<image>", "<row_1_col_2>", "<fake_token_around_image>", "<global-img>"} <= set(text["idefics3"])


def test_a_policy_without_rules_keeps_no_history(policy) -> None:
    assert not policy.rules.needs_history
    row = Row(None, GREEDY, SENTENCE, 9)
    TokenTexts(policy).ruled(torch.zeros(1, len(policy.tokenizer)), [row], torch.zeros(1))
    assert row._history is None


def test_top_k_and_min_p_leave_the_likeliest_and_the_profile_wins() -> None:
    policy = with_fields(tiny("llava"), top_k=2, min_p=0.2)
    logits = torch.tensor([[3.0, 2.9, 2.8, 0.0], [3.0, 0.0, 0.0, 0.0], [3.0, 2.9, 2.8, 0.0]])
    kept = policy.rules.for_sampling(logits, torch.tensor([1.0, 1.0, 0.0])).isfinite().tolist()
    assert kept == [[True, True, False, False], [True, False, False, False], [True] * 4]
    single = with_fields(tiny("llava"), top_k=1)
    assert single.rules.for_sampling(logits, torch.zeros(3)) is logits
    with pytest.raises(ValueError, match=r"top_k is 1 .* set policy\.top_k=0"):
        single.rules.for_sampling(logits, torch.ones(3))


@pytest.mark.parametrize("field", [{"forced_eos_token_id": 2}, {"guidance_scale": 1.5}, {"typical_p": 0.9}])
def test_what_cannot_be_honoured_is_refused_by_name(field: dict[str, Any]) -> None:
    ((name, value),) = field.items()
    with pytest.raises(ValueError, match=f"sets {name} {value}"):
        assert with_fields(tiny("llava"), **field).rules
