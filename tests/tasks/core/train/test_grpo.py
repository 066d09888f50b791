"""GRPO: every question used, every answer rewarded by its own image, groups whole; and it goes on where it was."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from tasks.core.models.policy import load_policy
from tasks.core.train import grpo
from tasks.core.train.drawing import Drawn
from tasks.core.train.grpo import Question, Sampling, advantages_of, filled, rewards_of_groups, train_grpo
from tasks.core.train.steps import Row, TrainingRun
from tasks.core.train.weights import FinetuneError, Recipe
from tests.support.drawing import engine_draw
from tests.support.paths import DEMO


@pytest.fixture
def questions(pictures, prompts) -> list[Question]:
    return [Question(pictures[i], prompts[i]) for i in range(5)]


def brief(indices, answers) -> list[float]:
    return [-float(len(text.split())) for text in answers]


def by_letters(indices, answers) -> list[float]:
    return [float(sum(map(ord, text))) for text in answers]


def fine_tune(policy, questions, work: Path, reward=brief, **options) -> dict[str, float]:
    plain = dict(
        train="full", lr=1e-3, epochs=1.0, batch_size=4, warmup_share=0.1, lora_rank=4, checkpoint_steps=100, seed=3
    )  # fmt: skip
    sampling = Sampling(options.pop("generations", 2), options.pop("temperature", 1.0), 12, options.pop("beta", 0.0))
    draw = options.pop("draw", None) or engine_draw(policy, questions, sampling, seed=3)
    on_step = options.pop("on_step", lambda done, loss: None)
    run = TrainingRun(Recipe(**{**plain, **options}), work, on_step)
    return train_grpo(policy, questions, reward, draw, run, sampling)


def weights(policy) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in policy.model.named_parameters()}


@pytest.mark.parametrize(
    ("texts", "rewarded", "expected"),
    [
        (["A.", ""], [0.5, None], [0.5, 0.5]),
        (["A.", " ", "B.", "C."], [0.5, None, -1.0, 2.0], [0.5, -1.0, -1.0, 2.0]),
        (["", "", "", ""], [None] * 4, [0.0] * 4),
        (["A.", "B.", "", "C."], [None, 0.2, None, 0.1], [None, 0.2, 0.1, 0.1]),
        (["A.", ""], [None, None], [None, 0.0]),
    ],
)
def test_silence_is_the_worst_of_its_group_and_what_cant_be_scored_stays_so(texts, rewarded, expected) -> None:
    assert rewards_of_groups(texts, rewarded, len(texts)) == expected
    # A group knows nothing of the others.
    twice = rewards_of_groups([*texts, *["X."] * len(texts)], [*rewarded, *[-9.0] * len(texts)], len(texts))
    assert twice[: len(texts)] == expected


@pytest.mark.parametrize(("count", "groups", "length"), [(5, 2, 6), (4, 2, 4), (1, 3, 3), (7, 1, 7)])
def test_every_question_is_used_and_steps_are_full(count: int, groups: int, length: int) -> None:
    indices = filled(count, groups)
    assert len(indices) == length
    assert set(indices) == set(range(count))


def test_answers_are_rewarded_in_whole_groups_of_their_own_question_and_learned_as_drawn(
    fresh_policy, questions, tmp_path, monkeypatch
) -> None:
    requests: list[tuple[int, str]] = []
    drawn: list[tuple[int, tuple[int, ...]]] = []
    learned: list[Row] = []
    loss = grpo.group_loss
    monkeypatch.setattr(grpo, "group_loss", lambda logs, rows, beta: (learned.extend(rows), loss(logs, rows, beta))[1])
    draws = engine_draw(fresh_policy, questions, Sampling(2, 1.0, 60, 0.0), seed=3)

    def draw(put, step):
        groups = draws(put, step)
        for request, group in zip(put, groups, strict=True):
            drawn.extend((request.question, answer.tokens) for answer in group)
        return groups

    def reward(indices, answers) -> list[float]:
        requests.extend(zip(indices, answers, strict=True))
        return brief(indices, answers)

    facts = fine_tune(fresh_policy, questions, tmp_path, reward, draw=draw)
    assert facts["steps"] == 3
    assert Counter(index for index, _ in requests) == {0: 4, 1: 2, 2: 2, 3: 2, 4: 2}
    assert all(item == other for (item, _), (other, _) in zip(requests[::2], requests[1::2], strict=True))
    assert len({text for _, text in requests}) > 6, "answers of a group are all the same"
    of = {id(question.image): index for index, question in enumerate(questions)}
    trained = [(of[id(row.turns[0].image)], row.turns[0].tokens) for row in learned]
    ends = fresh_policy.end_ids
    assert [(index, tokens[:-1] if tokens[-1] in ends else tokens) for index, tokens in trained] == drawn
    assert any(tokens[-1] in ends for _, tokens in trained), "the model never learns to stop"


@pytest.mark.parametrize("train", ["full", pytest.param("lora", marks=pytest.mark.slow)])
def test_the_policy_learns_what_is_rewarded_and_the_vision_tower_does_not(
    train: str, fresh_policy, questions, tmp_path
) -> None:
    before, side = weights(fresh_policy), fresh_policy.tokenizer.padding_side
    fresh_policy.tokenizer.padding_side = "right"
    facts = fine_tune(
        fresh_policy, questions, tmp_path, train=train, epochs=8.0 if train == "lora" else 4.0,
        lr=5e-3 if train == "lora" else 1e-3, batch_size=8, generations=4, beta=0.01,
    )  # fmt: skip
    after = weights(fresh_policy)
    assert after.keys() == before.keys(), "adapters were left in the model"
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert not any("vision" in name for name in changed)
    assert facts["reward_last"] > facts["reward_first"]
    assert facts["kl_last"] > 10 * facts["kl_first"] and facts["kl_first"] < 1e-3  # of the first tenth of the steps
    assert fresh_policy.tokenizer.padding_side == "right", "the processor is saved with the policy: it is left alone"
    assert "forward" not in vars(fresh_policy.model)
    assert not fresh_policy.model.training
    fresh_policy.tokenizer.padding_side = side


def test_without_a_weight_no_divergence_is_measured(fresh_policy, questions, tmp_path) -> None:
    facts = fine_tune(fresh_policy, questions[:2], tmp_path, by_letters)
    assert {"reward_first", "reward_last", "length_last", "flat_last"} <= facts.keys()
    assert not {"kl_first", "kl_last"} & facts.keys()


@pytest.mark.parametrize("train", ["full", pytest.param("lora", marks=pytest.mark.slow)])
def test_resumed_training_ends_with_bit_equal_weights_and_the_same_facts(
    train: str, fresh_policy, questions, tmp_path
) -> None:
    options = {"train": train, "checkpoint_steps": 2, "beta": 0.1}
    whole = fine_tune(fresh_policy, questions, tmp_path / "whole", **options)

    def die(done: int, loss: float) -> None:
        if done == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fine_tune(load_policy(DEMO / "policy", digest="demo"), questions, tmp_path / "work", on_step=die, **options)
    steps: list[int] = []
    resumed = load_policy(DEMO / "policy", digest="demo")
    facts = fine_tune(resumed, questions, tmp_path / "work", on_step=lambda done, loss: steps.append(done), **options)
    assert steps == [3]
    assert facts == whole
    there = weights(resumed)
    assert all(torch.equal(tensor, there[name]) for name, tensor in weights(fresh_policy).items())


def test_blank_answers_are_not_put_to_the_reward(fresh_policy, questions, tmp_path) -> None:
    scored: list[str] = []

    def reward(indices, answers) -> list[float]:
        scored.extend(answers)
        return [1.0] * len(answers)

    def draw(put, step):
        return [[Drawn((), "", True), Drawn((5, 6), "A dog.", True)] for _ in put]

    with pytest.raises(FinetuneError, match="no group of answers had different rewards"):
        fine_tune(
            fresh_policy, questions[:2], tmp_path, reward, draw=draw
        )  # the blank one is worth the other, its least
    assert scored == ["A dog.", "A dog."]


def test_advantages_are_over_the_groups_own_deviation_and_none_has_none() -> None:
    assert advantages_of([1.0, 3.0, None]) == pytest.approx([-(0.5**0.5), 0.5**0.5, 0.0], rel=1e-3)
    assert advantages_of([2.0, 2.0]) == [0.0, 0.0]
    assert advantages_of([None, 2.0]) == [0.0, 0.0]


def test_rewards_that_are_all_equal_teach_nothing_and_that_is_refused(fresh_policy, questions, tmp_path) -> None:
    with pytest.raises(FinetuneError, match="no group of answers had different rewards"):
        fine_tune(fresh_policy, questions[:2], tmp_path, lambda indices, answers: [1.0] * len(answers))


def test_groups_that_do_not_fill_a_batch_are_refused(fresh_policy, questions, tmp_path) -> None:
    with pytest.raises(ValueError, match=r"batch_size 4 is no multiple of finetune\.grpo\.generations 3"):
        fine_tune(fresh_policy, questions, tmp_path, generations=3)
