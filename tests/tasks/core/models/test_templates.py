"""What chat templates of today's families do to prompts and answers: spaces, thoughts, marks that stand for an image."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tasks.core.engine.prompts import Prompts
from tasks.core.models.policy import Policy
from tests.support.tiny_models import MORE_ARCHITECTURES, tiny

TEXT = "There is a dog on the left."


def decoded(policy: Policy, text: str) -> str:
    return str(policy.tokenizer.decode(policy.answer_ids(text)))


@pytest.mark.parametrize("name", ["qwen3_5", "qwen3_vl", "glm4v", "gemma3", "pixtral"])
def test_an_answer_s_tokens_are_its_text_s(name: str) -> None:
    assert decoded(tiny(name), f" {TEXT}\n") == TEXT


def test_a_thought_that_the_prompt_closes_is_no_part_of_an_answer() -> None:
    policy = tiny("qwen3_5")
    closed = replace(policy, settings=replace(policy.settings, template='{"enable_thinking": false}'))
    prompts = [each.chat.rendered("Go.", answer_next=True) for each in (policy, closed)]
    assert prompts[0].endswith("assistant\n<think>\n") and prompts[1].endswith("<think>\n\n</think>\n\n")
    assert policy.answer_ids(TEXT) == closed.answer_ids(TEXT)


@pytest.mark.parametrize("name", ["llava_vicuna", "idefics2", "deepseek_vl", "qwen3_5", "gemma3"])
def test_white_space_is_an_answer_without_tokens(name: str) -> None:
    assert tiny(name).answer_ids(" \n") == []


@pytest.mark.parametrize("name", ["gemma3", "gemma4", "qwen3_vl", "internvl", *MORE_ARCHITECTURES])
def test_a_prompt_is_divided_behind_its_image_whatever_stands_for_it(name: str) -> None:
    policy = tiny(name)
    head, tail = Prompts(policy, answer_next=True).split(TEXT)
    assert head and tail
    assert " dog" in policy.tokenizer.decode(tail)
    assert "dog" not in policy.tokenizer.decode(head)
