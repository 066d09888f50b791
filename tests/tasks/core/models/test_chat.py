"""A text in a turn is text: no placeholder, no control token; template arguments and a system prompt come from the profile."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from tasks.core.engine.decoder import Decoder
from tasks.core.engine.prompts import Prompts
from tasks.core.models.policy import Policy, PolicyError, load_policy
from tasks.core.models.policy_settings import PolicySettings
from tasks.core.models.value import ValueModel, ValueSpec
from tasks.core.placeholders import strip_placeholders
from tests.support.demo_models import PROMPTS
from tests.support.paths import DEMO
from tests.support.tiny_models import tiny

IMAGE = Image.new("RGB", (60, 44), "red")
NAMES = ("llava", "llava_next", "qwen2_vl", "idefics3", "mllama")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<image>\nDescribe the image.", "Describe the image."),
        ("Describe the image.\n<image>", "Describe the image."),
        ("Look: <image> What is it?", "Look: What is it?"),
        ("First.\n<image>\nSecond.", "First.\nSecond."),
        ("<|vision_start|><|image_pad|><|vision_end|>Go.", "Go."),
        ("Describe the image.", "Describe the image."),
        ("<image>\n", ""),
    ],
)
def test_placeholders_go_with_the_white_space_around(text: str, expected: str) -> None:
    assert strip_placeholders(text) == expected


@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_with_the_policys_own_placeholder_is_the_prompt_without(name: str) -> None:
    policy = tiny(name)
    token = policy.processor.image_token
    bare, written = policy.inputs([IMAGE], [PROMPTS[0]]), policy.inputs([IMAGE], [f"{token}\n{PROMPTS[0]}"])
    assert torch.equal(bare["input_ids"], written["input_ids"])
    split = Prompts(policy, answer_next=True).split
    assert split(f"{token}\n{PROMPTS[0]}") == split(PROMPTS[0])


@pytest.mark.parametrize("name", NAMES)
def test_special_tokens_in_a_text_are_plain_text(name: str) -> None:
    policy = tiny(name)
    specials = [policy.processor.image_token, policy.tokenizer.eos_token, "<assistant>", "<user>"]
    for answer_next in (True, False):
        (plain,) = policy.inputs([IMAGE], ["A page."], answer_next=answer_next)["input_ids"].tolist()
        for token in specials:
            (ids,) = policy.inputs([IMAGE], [f"A {token} page."], answer_next=answer_next)["input_ids"].tolist()
            id_ = policy.tokenizer.convert_tokens_to_ids(token)
            assert ids.count(id_) == plain.count(id_), (token, answer_next)
    read = Prompts(policy, answer_next=False).split("The page says <image> in a box. </s>")
    known = Prompts(policy, answer_next=False).split("A page.")
    assert read[0] == known[0]


def test_a_value_model_reads_a_sentence_that_quotes_a_placeholder() -> None:
    value = ValueModel(load_policy(DEMO / "policy", digest="x"), ValueSpec("x", "frozen", -1, "sentence"))
    with torch.inference_mode():
        both = value([IMAGE, IMAGE], ["The page says <image> in a box.", "A dog sits."])
        alone = value([IMAGE], ["The page says <image> in a box."])
    assert torch.allclose(both[:1], alone, atol=1e-4)
    (read,) = Decoder(value.policy).start([IMAGE], ["The page says <image> in a box."], answer_next=False)
    assert read.ids.count(value.policy.model.config.image_token_id) > 1


def copy_with_template(folder: Path, change: dict[str, str]) -> Path:
    copied = Path(shutil.copytree(DEMO / "policy", folder / "policy"))
    file = copied / "chat_template.jinja"
    text = file.read_text()
    for old, new in change.items():
        assert old in text
        text = text.replace(old, new)
    file.write_text(text)
    return copied


def prompt_ids(policy: Policy) -> list[int]:
    ids: list[int] = policy.inputs([IMAGE], [PROMPTS[0]])["input_ids"][0].tolist()
    return ids


def test_arguments_of_the_template_reach_every_prompt(tmp_path: Path) -> None:
    start = "{% if thinking is not defined or thinking %}{{ '<user>' }}{% endif %}"
    folder = copy_with_template(tmp_path, {"{% for message in messages %}": start + "{% for message in messages %}"})
    settings = PolicySettings(template=json.dumps({"thinking": False}))
    on, off = load_policy(folder, digest="x"), load_policy(folder, digest="x", settings=settings)
    assert len(prompt_ids(on)) == len(prompt_ids(off)) + 1
    assert len(on.chat.rendered("Go.")) > len(off.chat.rendered("Go."))


def test_an_argument_that_the_template_never_reads_is_refused_by_name() -> None:
    settings = PolicySettings(template=json.dumps({"enable_thinking": False}))
    with pytest.raises(PolicyError, match=r"policy\.template: the chat template never reads enable_thinking"):
        load_policy(DEMO / "policy", digest="x", settings=settings)


def test_a_system_prompt_stands_before_every_prompt_or_is_refused(tmp_path: Path) -> None:
    settings = PolicySettings(system_prompt="There is a dog.")
    policy = load_policy(DEMO / "policy", digest="x", settings=settings)
    bare = load_policy(DEMO / "policy", digest="x")
    words = policy.tokenizer("There is a dog.", add_special_tokens=False)["input_ids"]
    with_it = prompt_ids(policy)
    assert len(with_it) > len(prompt_ids(bare))
    assert any(with_it[at : at + len(words)] == words for at in range(len(with_it)))
    folder = copy_with_template(
        tmp_path, {"{% for message in messages %}": "{% for message in messages if message['role'] != 'system' %}"}
    )
    with pytest.raises(PolicyError, match=r"policy\.system_prompt: the chat template drops it"):
        load_policy(folder, digest="x", settings=settings)


@pytest.mark.parametrize("name", ["qwen2_vl", "llava_next", "idefics3"])
def test_max_pixels_makes_fewer_image_tokens(name: str, tmp_path: Path) -> None:
    policy = tiny(name)
    policy.model.save_pretrained(tmp_path)
    policy.processor.save_pretrained(tmp_path)
    image = Image.new("RGB", (112, 112))
    lengths = []
    for pixels in (None, 28 * 56, 28 * 28):
        loaded = load_policy(tmp_path, digest="x", settings=PolicySettings(max_pixels=pixels))
        inputs = loaded.inputs([image], [PROMPTS[0]])
        assert torch.isfinite(loaded.model(**inputs).logits).all()
        lengths.append(inputs["input_ids"].shape[1])
    assert lengths[0] > lengths[1] >= lengths[2]
    assert lengths[0] > lengths[2]
    with pytest.raises(PolicyError, match=r"policy\.max_pixels is 9: the smallest image .* has \d+ pixels"):
        load_policy(tmp_path, digest="x", settings=PolicySettings(max_pixels=9))


def test_a_processor_of_one_size_has_no_max_pixels() -> None:
    with pytest.raises(PolicyError, match=r"policy\.max_pixels: \w+ resizes every image alike"):
        load_policy(DEMO / "policy", digest="x", settings=PolicySettings(max_pixels=10_000))
