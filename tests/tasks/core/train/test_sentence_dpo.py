"""DPO of next sentences: the loss covers the sentence's tokens, given image, prompt and the answer so far."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tasks.core.models.policy import load_policy
from tasks.core.train.answers import Turn, answer_inputs, read_tokens
from tasks.core.train.dpo import PreferencePair, pair_row, train_dpo
from tasks.core.train.steps import TrainingRun
from tasks.core.train.weights import Recipe
from tests.support.paths import DEMO

BEFORE = "There is a dog. I can see a cat."
SENTENCES = ("There is a wine glass.", "There is a car.")


@pytest.fixture
def pairs(pictures, prompts) -> list[PreferencePair]:
    """After a long, a short and no answer so far; a batch of them is padded."""
    return [
        PreferencePair(pictures[i], prompts[i], *SENTENCES, prefix)
        for i, prefix in enumerate((BEFORE, "There is a dog.", ""))
    ]


def fine_tune(policy, pairs, work: Path, **options) -> dict[str, float]:
    plain = dict(
        train="full", lr=3e-4, epochs=2.0, batch_size=2, warmup_share=0.1, lora_rank=4, checkpoint_steps=100, seed=3
    )  # fmt: skip
    on_step = options.pop("on_step", lambda done, loss: None)
    return train_dpo(policy, pairs, TrainingRun(Recipe(**{**plain, **options}), work, on_step), beta=0.1)


def by_hand(policy, pair: PreferencePair, sentence: str) -> torch.Tensor:
    """Log-probabilities [T] of a sentence's tokens after the answer so far, by a forward over the whole text."""
    inputs = policy.inputs([pair.image], [pair.prompt])
    known = policy.tokenizer(pair.prefix, add_special_tokens=False).input_ids if pair.prefix else []
    whole = f"{pair.prefix} {sentence}".strip()
    ids = policy.tokenizer(whole, add_special_tokens=False).input_ids
    assert ids[: len(known)] == known
    tokens = torch.tensor(ids)
    read = torch.cat([inputs["input_ids"], tokens[None]], dim=1)
    with torch.inference_mode():
        logits = policy.model(input_ids=read, pixel_values=inputs["pixel_values"]).logits[0, -len(ids) - 1 : -1]
    return logits.log_softmax(dim=-1).gather(1, tokens[:, None])[len(known) :, 0]


def test_the_loss_reads_the_sentence_and_neither_the_answer_so_far_nor_an_end(policy, pairs) -> None:
    turns = [turn for item, pair in enumerate(pairs) for turn in pair_row(policy, item, pair).turns]
    with torch.inference_mode():
        log_probs, _ = read_tokens(policy, policy.model, answer_inputs(policy, turns), turns)
    expected = [by_hand(policy, pair, sentence) for pair in pairs for sentence in SENTENCES]
    longest = max(len(turn.tokens) for turn in turns)
    assert log_probs.shape == (6, longest)
    for row, theirs in zip(log_probs, expected, strict=True):
        assert torch.equal(row[: longest - len(theirs)], torch.zeros(longest - len(theirs)))
        torch.testing.assert_close(row[longest - len(theirs) :], theirs, atol=2e-4, rtol=1e-3)


def test_both_sentences_follow_the_same_tokens(policy, pairs) -> None:
    first, second = pair_row(policy, 0, pairs[0]).turns
    assert first.given == second.given == frozenset(range(len(first.given))) != frozenset()
    assert first.tokens[: len(first.given)] == second.tokens[: len(second.given)]
    assert policy.end_id not in (first.tokens[-1], second.tokens[-1])
    assert pair_row(policy, 2, pairs[2]).turns[0].given == frozenset()


def test_a_turn_without_given_tokens_reads_all_of_its_tokens(policy, pictures, prompts) -> None:
    tokens = tuple(policy.answer_ids(BEFORE))
    turns = [
        Turn(pictures[0], prompts[0], tokens),
        Turn(pictures[0], prompts[0], tokens, given=frozenset(range(len(tokens) - 3))),
    ]
    with torch.inference_mode():
        whole, part = read_tokens(policy, policy.model, answer_inputs(policy, turns), turns)[0]
    torch.testing.assert_close(part[-3:], whole[-3:], atol=1e-5, rtol=1e-5)
    assert torch.count_nonzero(part) == 3
    assert torch.count_nonzero(whole) == len(tokens)


def test_training_starts_from_the_sentences_log_probabilities(fresh_policy, pairs, tmp_path) -> None:
    pair = pairs[0]
    chosen, rejected = (float(by_hand(fresh_policy, pair, sentence).sum()) for sentence in SENTENCES)
    facts = fine_tune(fresh_policy, [pair], tmp_path, epochs=1.0, batch_size=1)
    assert [facts["chosen_first"], facts["rejected_first"]] == pytest.approx([chosen, rejected], rel=1e-3)
    assert facts["loss_first"] == pytest.approx(0.6931, abs=1e-4)


def test_the_sentence_is_preferred_after_training_and_a_killed_one_ends_the_same(fresh_policy, pairs, tmp_path) -> None:
    options = {"checkpoint_steps": 2, "epochs": 4.0, "lr": 1e-3}
    before = [
        float(by_hand(fresh_policy, p, SENTENCES[0]).sum() - by_hand(fresh_policy, p, SENTENCES[1]).sum())
        for p in pairs
    ]
    whole = fine_tune(fresh_policy, pairs, tmp_path / "whole", **options)
    after = [
        float(by_hand(fresh_policy, p, SENTENCES[0]).sum() - by_hand(fresh_policy, p, SENTENCES[1]).sum())
        for p in pairs
    ]
    assert all(now > then for now, then in zip(after, before, strict=True))

    def die(done: int, loss: float) -> None:
        if done == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fine_tune(load_policy(DEMO / "policy", digest="demo"), pairs, tmp_path / "work", on_step=die, **options)
    resumed = load_policy(DEMO / "policy", digest="demo")
    assert fine_tune(resumed, pairs, tmp_path / "work", **options) == whole
    there = dict(resumed.model.named_parameters())
    assert all(torch.equal(tensor, there[name]) for name, tensor in fresh_policy.model.named_parameters())
