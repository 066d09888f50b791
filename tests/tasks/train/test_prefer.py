"""Prefer: answers of the same prompt paired by what they are worth, by reward or by either kind of value model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from storage import checkpoints, lake
from storage.artifacts import Table
from storage.schema import Preference, Reward, Rollout
from tasks.configs.train import DpoSettings
from tasks.models.answer_values import PromptedAnswer, mean_values, sentence_values
from tasks.models.handles import ValueHandle
from tasks.models.loading import load_images
from tasks.stage.quarantine import StageInputError
from tasks.stage.runtime import current_runtime, use_runtime
from tasks.train.prefer import PreferencesResult, prefer
from tasks.value.train_value import train_value
from tests.support.small_world import VALUE, drawn, policy, rollouts, samples, shaped, trained, value

REWARD = DpoSettings(by="reward")


@cache
def states() -> ValueHandle:
    """A value model that reads the policy's states."""
    config = VALUE.model_copy(update={"reads": "policy_states", "lr": 1e-3})
    world, rewards = drawn(), shaped().rewards
    output = train_value.fn(config, policy(), world.images, world.samples, rewards, rollouts=rollouts(), seed=0)
    return ValueHandle(output.value, policy())


def value_of(kind: str) -> ValueHandle:
    return value() if kind == "image_and_text" else states()


def preferred(
    config: DpoSettings = REWARD, rewards: Table[Reward] | None = None, **options: object
) -> PreferencesResult:
    return prefer.fn(config, drawn().samples, rollouts(), rewards or shaped().rewards, **options)


def by_value(value: ValueHandle) -> PreferencesResult:
    return preferred(DpoSettings(by="value"), value=value, images=drawn().images)


def changed(change: Callable[[Reward], Reward]) -> Table[Reward]:
    return lake.publish(Reward, [change(row) for row in lake.read_rows(Reward, shaped().rewards)])


def means() -> dict[str, float]:
    rewards: dict[str, list[float]] = {}
    for row in lake.read_rows(Reward, shaped().rewards):
        rewards.setdefault(row.rollout_id, []).append(row.shaped)
    return {rollout_id: float(np.mean(of_answer)) for rollout_id, of_answer in rewards.items()}


def test_the_answer_with_the_largest_mean_reward_is_chosen() -> None:
    output = preferred()
    worth, answers = means(), {answer.rollout_id: answer for answer in lake.read_rows(Rollout, rollouts())}
    image_of = {sample.sample_id: sample.image_id for sample in samples()}
    rows = lake.read_rows(Preference, output.preferences)
    for row in rows:
        of = [worth[answer.rollout_id] for answer in answers.values() if answer.sample_id == row.sample_id]
        assert (row.chosen_worth, row.rejected_worth) == pytest.approx((max(of), min(of)))
        assert (row.chosen_text, row.rejected_text) == (answers[row.chosen].text, answers[row.rejected].text)
        assert row.image_id == image_of[row.sample_id]
    assert output.pairs == len(rows) > 3
    assert output.mean_gap == pytest.approx(np.mean([r.chosen_worth - r.rejected_worth for r in rows]))
    skipped = sum(output.counters.get(why, 0) for why in ("one_answer", "same_text", "tie", "small_gap"))
    assert len(rows) + skipped == len(samples()), "a prompt without a pair is not counted"


def test_answers_without_a_score_are_left_out_and_counted() -> None:
    (first, *_) = lake.read_rows(Preference, preferred().preferences)
    without = changed(lambda row: replace(row, shaped=None) if row.rollout_id == first.chosen else row)
    output = preferred(rewards=without)
    assert output.counters["unranked"] == 1
    assert all(row.chosen != first.chosen for row in lake.read_rows(Preference, output.preferences))
    # One scored sentence is enough.
    half = changed(lambda row: replace(row, shaped=None) if (row.rollout_id, row.step) == (first.chosen, 0) else row)
    several = any(r.rollout_id == first.chosen and r.step for r in lake.read_rows(Reward, half))
    assert preferred(rewards=half).counters["unranked"] == (0 if several else 1)


def test_pairs_too_close_are_left_out() -> None:
    gaps = [r.chosen_worth - r.rejected_worth for r in lake.read_rows(Preference, preferred().preferences)]
    bound = sorted(gaps)[len(gaps) // 2]
    output = preferred(REWARD.model_copy(update={"min_gap": bound}))
    assert output.pairs == sum(gap >= bound for gap in gaps)
    assert output.counters["small_gap"] == sum(gap < bound for gap in gaps)


def test_nothing_to_choose_between_is_an_error_with_the_reason() -> None:
    with pytest.raises(StageInputError, match=r"no prompt has two answers to choose between \(.* small_gap"):
        preferred(REWARD.model_copy(update={"min_gap": 1e9}))
    with pytest.raises(StageInputError, match="no answer has a worth"):
        preferred(rewards=changed(lambda row: replace(row, shaped=None)))


def test_values_need_a_value_model() -> None:
    with pytest.raises(StageInputError, match=r"give prefer value and images, .* finetune\.dpo\.by="):
        preferred(DpoSettings(by="value"))


@pytest.mark.parametrize("kind", ["image_and_text", "policy_states"])
def test_worth_by_value_is_the_mean_of_v_over_the_sentences(kind: str) -> None:
    from tasks.core.models.states import sentence_states
    from tasks.core.models.value import load_state_value, load_value
    from tasks.core.text import split_sentences
    from tasks.models.loading import load_policy

    value = value_of(kind)
    output = by_value(value)
    rows = lake.read_rows(Preference, output.preferences)
    assert len(rows) > 3
    assert output.counters["unranked"] == sum(not answer.text.strip() for answer in lake.read_rows(Rollout, rollouts()))
    prompt_of = {sample.sample_id: sample.prompt for sample in samples()}
    for row in rows[:2]:
        picture = load_images(drawn().images, [row.image_id])[row.image_id]
        if kind == "policy_states":
            head = load_state_value(checkpoints.folder(value.checkpoint), "cpu")
            (read,) = sentence_states(
                load_policy(policy()), [(picture, prompt_of[row.sample_id])], [row.chosen_text],
                layer=-1, batch_size=1,
            )  # fmt: skip
            expected = head(read).mean().item()
        else:
            network = load_value(checkpoints.folder(value.checkpoint), checkpoints.folder(policy().checkpoint))
            sentences = [sentence.text for sentence in split_sentences(row.chosen_text)]
            expected = network([picture] * len(sentences), sentences).mean().item()
        assert row.chosen_worth == pytest.approx(expected, abs=1e-4)
        assert row.chosen_worth > row.rejected_worth
    with use_runtime(current_runtime().model_copy(update={"batch_size": 3})):
        smaller = by_value(value)
    worths = [(r.chosen_worth, r.rejected_worth) for r in lake.read_rows(Preference, smaller.preferences)]
    assert np.allclose(worths, [(r.chosen_worth, r.rejected_worth) for r in rows], atol=1e-3)


def test_a_value_of_prefixes_reads_all_up_to_each_sentence() -> None:
    prefix = trained(VALUE.model_copy(update={"state": "prefix", "train": "frozen", "epochs": 1})).value
    read = sentence_values(ValueHandle(prefix, policy()))
    picture = next(iter(load_images(drawn().images, [samples()[0].image_id]).values()))

    def of(text: str) -> list[float]:
        return read([PromptedAnswer(picture, "Go.", text)])[0]

    both = of("There is a dog. There is a cat.")
    assert both[0] == pytest.approx(of("There is a dog.")[0], abs=1e-4)
    assert both[1] != pytest.approx(of("There is a cat.")[0], abs=1e-4)


@pytest.mark.parametrize("kind", ["image_and_text", "policy_states"])
def test_an_empty_answer_has_no_value_and_the_others_have_theirs(kind: str) -> None:
    read = sentence_values(value_of(kind))
    picture = next(iter(load_images(drawn().images, [samples()[0].image_id]).values()))
    answers = [PromptedAnswer(picture, "Go.", text) for text in ("There is a dog.", " ", "There is a cat.")]
    first, nothing, last = mean_values(read, answers)
    assert nothing is None
    assert [first, last] == pytest.approx(mean_values(read, answers[::2]), abs=1e-4)
