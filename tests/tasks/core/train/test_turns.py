"""Conversations of several turns: every answer is learned, what is between them is read as the template writes it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tasks.core.demo.train_answers import collate_conversations
from tasks.core.demo.train_policy import IGNORED
from tasks.core.models.policy import Policy, load_policy
from tasks.core.train.answers import answer_inputs, answer_tokens, read_answers
from tasks.core.train.sft import Example, caption_row, train_sft
from tasks.core.train.steps import TrainingRun
from tasks.core.train.weights import Recipe
from tests.support.paths import DEMO
from tests.support.sequences import POLICIES, VICUNA, end_text, fresh, rendered, whole_inputs

FIRST, LATER = ("Describe the image.", "There is a dog."), ("What is on the left?", "A man walks.")


def run(work: Path) -> TrainingRun:
    recipe = Recipe(
        train="full", lr=1e-3, epochs=1.0, batch_size=1, warmup_share=0.0, lora_rank=2, checkpoint_steps=99, seed=1
    )
    return TrainingRun(recipe, work, lambda done, loss: None)


def between(policy: Policy) -> str:
    """What the template writes between the first answer's end and the second answer."""
    texts = [("user", FIRST[0]), ("assistant", FIRST[1]), ("user", LATER[0])]
    chat = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in texts]
    chat[0]["content"].insert(0, {"type": "image"})
    whole = policy.processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    after = whole.split(FIRST[1], 1)[1]
    space = " " if policy.processor.chat_template == VICUNA else ""
    return after.removeprefix(end_text(policy)) + space


@pytest.mark.parametrize("name", POLICIES)
def test_the_loss_is_a_plain_forwards_over_both_answers(name: str, pictures, tmp_path) -> None:
    policy = fresh(name)
    alone = rendered(policy, *FIRST)
    short, whole = (
        whole_inputs(policy, pictures[1], text)
        for text in (alone, alone + between(policy) + LATER[1] + end_text(policy))
    )
    counts = [len(answer_tokens(policy, text)) for _, text in (FIRST, LATER)]
    ids, end = whole["input_ids"][0], short["input_ids"].shape[1]
    learned = [*range(end - counts[0], end), *range(len(ids) - counts[1], len(ids))]
    with torch.inference_mode():
        logits = policy.model(**whole).logits[0]
    expected = torch.nn.functional.cross_entropy(logits[[i - 1 for i in learned]], ids[learned]).item()
    example = Example(pictures[1], *FIRST, later=(LATER,))
    facts = train_sft(policy, [example], run(tmp_path))
    assert facts["loss_first"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", POLICIES)
def test_what_is_learned_are_both_answers_with_their_ends(name: str, pictures) -> None:
    policy = fresh(name)
    row = caption_row(policy, 0, Example(pictures[0], *FIRST, later=(LATER, FIRST)))
    (turn,) = row.turns
    learned = [token for index, token in enumerate(turn.tokens) if index not in turn.given]
    texts = [FIRST[1], LATER[1], FIRST[1]]
    assert learned == [token for text in texts for token in answer_tokens(policy, text)]
    assert row.weight == len(learned) and len(turn.given) == len(turn.tokens) - len(learned) > 0
    given = policy.tokenizer.decode([turn.tokens[index] for index in sorted(turn.given)])
    # Their first words may be unknown to a tiny vocabulary.
    assert given.count("is on the left?") == 1 and given.count("the image.") == 1
    log_probs = read_answers(policy, [turn]).log_probs[0]
    assert [index for index, value in enumerate(log_probs.tolist()) if value == 0] == sorted(turn.given)


def test_the_demos_policy_reads_what_its_own_recipe_writes(pictures) -> None:
    policy = load_policy(DEMO / "policy-cot", digest="demo-cot")
    turns = [("Is there a dog in the image?", "No"), ("How many objects are there in the image?", "3")]
    row = caption_row(policy, 0, Example(pictures[0], *turns[0], later=tuple(turns[1:])))
    batch = collate_conversations(policy.tokenizer, [turns], policy.model.config.image_seq_length)
    ids = answer_inputs(policy, row.turns)["input_ids"][0].tolist()
    assert ids == batch["input_ids"][0].tolist()
    (turn,) = row.turns
    start = len(ids) - len(turn.tokens)
    learned = [IGNORED if i < start or i - start in turn.given else token for i, token in enumerate(ids)]
    assert learned == batch["labels"][0].tolist()


def test_a_template_that_drops_earlier_answers_is_refused(pictures) -> None:
    policy = fresh("llava")
    policy.processor.chat_template = (
        "{{ bos_token }}{% for part in messages[-1]['content'] %}{% if part['type'] == 'image' %}<image>{% else %}"
        "{{ part['text'] }}{% endif %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    forgetful = replace(policy)
    assert caption_row(forgetful, 0, Example(pictures[0], *FIRST)).turns
    with pytest.raises(ValueError, match="the chat template drops earlier answers"):
        caption_row(forgetful, 0, Example(pictures[0], *FIRST, later=(LATER,)))
