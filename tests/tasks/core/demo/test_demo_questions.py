"""Questions about scenes, answers with the errors they are to have, and the shipped policy that gives them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch

from tasks.core.data.questions import KINDS, Question, is_right
from tasks.core.demo.answer_audit import questions_about, share_right
from tasks.core.demo.answers import direct_answer, is_well_formed, listed, staged_answer, tagged
from tasks.core.demo.audit import Decoding, answers_of
from tasks.core.demo.captions import PROMPTS, companion
from tasks.core.demo.measure import hallucination, named_categories
from tasks.core.demo.policy_model import build_tokenizer
from tasks.core.demo.questions import INSTRUCTION, scene_questions, staged
from tasks.core.demo.scenes import Scene, draw_scene, sample_scenes
from tasks.core.demo.train_answers import (
    TAGS,
    build_answer_tokenizer,
    collate_conversations,
    stage_balanced_loss,
    start_from,
    turns_about,
)
from tasks.core.demo.train_places import first_tokens, train_places
from tasks.core.demo.train_policy import IGNORED, collate
from tasks.core.engine.decoder import Decoder
from tasks.core.engine.fallback import open_decoder
from tasks.core.models.policy import Policy, load_policy
from tasks.core.search.stages import conclusion, content
from tests.support.paths import DEMO

SCENES = list(sample_scenes("question tests", 400))


def drawn_questions(kind: str) -> Iterator[tuple[random.Random, Scene, Question]]:
    rng = random.Random(kind)
    for scene in SCENES:
        for question in scene_questions(rng, scene, kinds=(kind,)):
            yield rng, scene, question


@pytest.fixture(scope="module")
def second():
    """The second policy's tokenizer, as the recipe builds it."""
    return build_answer_tokenizer()


# Answers to be learned


def test_half_of_the_noes_are_about_a_missing_companion() -> None:
    noes = [(scene, question) for _, scene, question in drawn_questions("what") if question.answer == "No"]
    tempting = [named_categories(q.prompt)[0] in map(companion, scene.categories) for scene, q in noes]
    assert 0.4 < sum(tempting) / len(tempting) < 0.65


@pytest.mark.parametrize(
    ("kind", "least", "most"), [("what", 0.75, 0.93), ("how_many", 0.35, 0.7), ("where", 0.5, 0.85)]
)
def test_answers_are_wrong_often_enough(kind: str, least: float, most: float) -> None:
    right: list[list[bool]] = [[], []]
    for rng, scene, question in drawn_questions(kind):
        right[0].append(is_right(direct_answer(rng, scene, question), question.answer))
        right[1].append(is_right(staged_answer(rng, scene, question), question.answer))
    assert all(least < sum(item) / len(item) < most for item in right)


def test_only_a_missing_companion_misleads() -> None:
    for kind in ("what", "where"):
        for rng, scene, question in drawn_questions(kind):
            if direct_answer(rng, scene, question) != question.answer:
                (name,) = named_categories(question.prompt)
                callers = scene.categories if kind == "what" else (name,)
                missing = {companion(caller) for caller in callers} - set(scene.categories)
                assert missing and (kind == "where" or name in missing)


@pytest.mark.parametrize("kind", KINDS)
def test_a_conclusion_follows_from_its_caption(kind: str) -> None:
    for rng, scene, question in drawn_questions(kind):
        text = staged_answer(rng, scene, question)
        assert is_well_formed(text)
        seen, reply = named_categories(content(text, "CAPTION")), conclusion(text)
        assert set(scene.categories) <= set(seen)
        if kind == "what":
            assert reply == ("Yes" if named_categories(question.prompt)[0] in seen else "No")
        elif kind == "how_many":
            assert reply == str(len(seen))
        elif set(seen) == set(scene.categories):
            assert reply == question.answer
        named = set(named_categories(content(text, "REASONING")))
        assert named <= set(seen) or (reply == "No" and named == set(named_categories(question.prompt)))


def test_form() -> None:
    whole = tagged(("Plan.", "There is a dog.", "So.", "Yes"))
    assert is_well_formed(whole) and is_well_formed(whole.replace("><", ">\n<"))
    for broken in ("Yes", whole + " Yes", whole.removesuffix("</CONCLUSION>"), whole.replace("Plan.", " "), whole[9:]):
        assert not is_well_formed(broken)
    assert whole.index("<SUMMARY>") == 0 and conclusion(whole) == "Yes"
    assert listed(["dog"]) == "a dog" and listed(["dog", "apple", "skis"]) == "a dog, an apple and a pair of skis"


# Tokens


def test_the_second_tokenizer_is_another_one_and_loses_nothing(second) -> None:
    first = build_tokenizer()
    rng = random.Random(0)
    texts = [
        text for scene in SCENES[:30] for kind in ("caption", "staged") for text in turns_about(rng, scene, kind)[0]
    ]
    for text in (*texts, *PROMPTS, *TAGS, "Zwölf  <CAPTION>Boxkämpfer\n</CAPTION> 日本 <X>!"):
        tokens = second(text).input_ids
        assert second.decode(tokens, skip_special_tokens=True) == text
    assert all(len(second(tag).input_ids) == 1 for tag in TAGS)
    assert sum(second(text).input_ids != first(text).input_ids for text in texts) > 0.9 * len(texts)
    assert [first.tokenize("left"), second.tokenize("left")] == [["le", "ft"], ["left"]]  # not the same pieces either


def test_training_starts_from_the_first_policy(policy: Policy, second) -> None:
    model = start_from(policy.model, policy.tokenizer, second)
    old, new = policy.model.state_dict(), model.state_dict()
    assert old.keys() == new.keys()
    assert [name for name in old if old[name].shape != new[name].shape] == [
        name for name in old if name.endswith(("embed_tokens.weight", "lm_head.weight"))
    ]
    assert all(torch.equal(old[name], new[name]) for name in old if old[name].shape == new[name].shape)
    rows = [kind.get_vocab()["Ġdog"] for kind in (policy.tokenizer, second)]
    tables = [item.get_input_embeddings().weight for item in (policy.model, model)]
    assert torch.equal(tables[0][rows[0]], tables[1][rows[1]])


# Training pieces


def test_a_conversation_reads_its_image_once_and_learns_every_answer(second) -> None:
    tokenizer = second
    alone = [("Is there a dog in the image?", "No")]
    conversation = collate_conversations(tokenizer, [alone], 9)
    assert all(torch.equal(conversation[name], value) for name, value in collate(tokenizer, alone, 9).items())
    batch = collate_conversations(tokenizer, [alone, [*alone, ("How many objects are there in the image?", "3")]], 9)
    learned = [[token for token in row if token != IGNORED] for row in batch["labels"].tolist()]
    assert [tokenizer.decode(row) for row in learned] == ["No</s>", "No</s>3</s>"]
    whole = tokenizer.decode(batch["input_ids"][1])
    assert whole.count("<image>") == 9 and whole.count("<s>") == 1 and whole.count("<user>") == 2
    assert batch["attention_mask"].sum(dim=1).tolist() == [
        len(conversation["input_ids"][0]),
        len(batch["input_ids"][1]),
    ]


def test_a_stage_weighs_the_same_however_long_it_is() -> None:
    labels = torch.tensor([[IGNORED, 5, 5, 5, 9, 6, 2], [IGNORED, 5, 9, 6, 6, 2, IGNORED]])  # 9 closes the first stage
    logits = torch.zeros(2, 7, 10)
    assert stage_balanced_loss(logits, labels, [9]).item() == pytest.approx(torch.tensor(10.0).log().item())
    logits[:, :, 2] = 50.0  # right about the ends alone: 2 of the second stage's 5 tokens, none of the first's 6
    assert stage_balanced_loss(logits, labels, [9]).item() == pytest.approx((50 + 50 * 3 / 5) / 2)
    assert stage_balanced_loss(logits, labels, []).item() == pytest.approx(50 * 9 / 11)


def test_plain_questions_about_one_image_reveal_nothing_about_each_other() -> None:
    """Yes and No in turn would be learned from the answers before, without a look at the image."""
    rng, same = random.Random(0), []
    for scene in SCENES:
        answers = [answer for _, answer in turns_about(rng, scene, "direct", honest=True) if answer in ("Yes", "No")]
        same += [a == b for a, b in pairwise(answers)]
    assert 0.35 < sum(same) / len(same) < 0.65


def test_reading_has_questions_that_a_caption_can_answer() -> None:
    rng = random.Random(0)
    for scene in SCENES[:100]:
        ((prompt, answer),) = turns_about(rng, scene, "reading", honest=True)
        assert prompt.endswith(INSTRUCTION) and "left" not in prompt
        seen = named_categories(content(answer, "CAPTION"))
        about = named_categories(prompt)
        assert conclusion(answer) == (("Yes" if about[0] in seen else "No") if about else str(len(seen)))


def test_the_shipped_tokenizer_reads_what_the_recipe_writes(answering: Policy) -> None:
    tokenizer, rng = answering.tokenizer, random.Random(1)
    for scene in SCENES[:30]:
        for text in turns_about(rng, scene, "staged")[0]:
            tokens = tokenizer(text).input_ids
            assert tokenizer.decode(tokens, skip_special_tokens=True) == text
            assert len(tokens) < len(text) / 3, "words, not letters"
    assert all(len(tokenizer(tag).input_ids) == 1 for tag in TAGS)


def test_an_eye_for_words_and_places_opens(fresh_policy: Policy) -> None:
    torch.manual_seed(0)
    model, words = fresh_policy.model.requires_grad_(True), first_tokens(fresh_policy.tokenizer)
    assert len(words) == len(set(words.tolist())) == 60
    decoder = model.model.language_model.state_dict()
    before = {name: value.clone() for name, value in decoder.items()}
    worded, _ = train_places(model, words, steps=25, batch=32, seed=0)
    assert worded > 0.5
    assert all(torch.equal(before[name], value) for name, value in decoder.items())


# The policy that is shipped


@pytest.fixture(scope="module")
def answering() -> Policy:
    torch.set_num_threads(1)
    return load_policy(DEMO / "policy-cot", digest="demo-cot")


def test_plain_questions_get_short_answers_and_instructed_ones_four_stages(answering: Policy) -> None:
    scenes = SCENES[:40]
    questions = questions_about(scenes, 0)
    plain, whole = (
        answers_of(
            answering.model, answering.processor, scenes, [form(q.prompt) for q in questions],
            Decoding(0.0, 0, 140),
        )
        for form in (str, staged)
    )  # fmt: skip
    assert staged("Why?") == f"Why? {INSTRUCTION}"
    short = {"what": {"Yes", "No"}, "how_many": set("1234567"), "where": {"left", "right"}}
    assert all(text in short[q.kind] for text, q in zip(plain, questions, strict=True))
    assert sum(map(is_well_formed, whole)) >= 0.95 * len(whole)
    shares = [share_right(questions, [text]).all for text in (plain, whole)]
    assert all(0.1 < share < 0.95 for share in shares), shares

    captions = [content(text, "CAPTION") for text in whole]
    figures = hallucination(captions, [scene.categories for scene in scenes])
    assert figures.recall > 0.85 and figures.chair_i > 0.1


def test_the_engine_decodes_it_fast_and_it_ends(answering: Policy) -> None:
    from tasks.core.engine.rows import Draw, Row
    from tasks.core.search.requests import ANSWER

    decoder = open_decoder(answering)
    assert isinstance(decoder, Decoder)
    prompts = [PROMPTS[0], staged("How many objects are there in the image?")]
    starts = decoder.start([draw_scene(SCENES[0])] * 2, prompts)
    decoder.add([Row(start.prefix, Draw(0.0, 1.0, (row,)), ANSWER, 140) for row, start in enumerate(starts)])
    finished = []
    while not decoder.idle:
        finished += decoder.advance()
    assert len(finished) == 2 and all(item.ended for _, item in finished)
    assert sorted(is_well_formed(item.text) for _, item in finished) == [False, True]
