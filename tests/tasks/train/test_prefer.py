"""Prefer: answers of the same prompt paired by what they are worth, by reward or by either kind of value model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from storage import checkpoints, lake
from storage.artifacts import ArtifactRef, StageOutput
from storage.schema import Preference, Reward, Rollout
from tasks.configs.train import DpoConfig
from tasks.models.answer_values import SaidAnswer, mean_values, sentence_values
from tasks.models.loading import load_images
from tasks.stage.stage import StageInputError
from tasks.train.prefer import prefer
from tasks.value.train_value import train_value
from tests.support.small_world import MODEL, RUNTIME, VALUE, drawn, labelled, policy, rollouts, samples, trained

REWARD = DpoConfig(by="reward")


@cache
def states() -> ArtifactRef:
    """A value model that reads the policy's states."""
    config = VALUE.model_copy(update={"reads": "policy_states", "lr": 1e-3})
    world = drawn()
    output = train_value.fn(
        config, MODEL, policy(), world["images"], world["samples"], labelled()["rewards"], rollouts=rollouts(), seed=0,
        runtime=RUNTIME,
    )  # fmt: skip
    return output["value"]


def preferred(config: DpoConfig = REWARD, rewards: ArtifactRef | None = None, **options: object) -> StageOutput:
    return prefer.fn(
        config, drawn()["samples"], rollouts(), rewards or labelled()["rewards"], **{"runtime": RUNTIME, **options}
    )


def by_value(value: ArtifactRef, **options: object) -> StageOutput:
    given = {"value": value, "backbone": policy(), "model": MODEL, "images": drawn()["images"], **options}
    return preferred(DpoConfig(by="value"), **given)


def changed(change: Callable[[Reward], Reward]) -> ArtifactRef:
    return lake.publish(Reward, [change(row) for row in lake.read_rows(Reward, labelled()["rewards"])])


def means() -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for row in lake.read_rows(Reward, labelled()["rewards"]):
        found.setdefault(row.rollout_id, []).append(row.shaped)
    return {rollout_id: float(np.mean(shaped)) for rollout_id, shaped in found.items()}


def test_the_answer_with_the_largest_mean_reward_is_chosen() -> None:
    output = preferred()
    worth, said = means(), {one.rollout_id: one for one in lake.read_rows(Rollout, rollouts())}
    image_of = {one.sample_id: one.image_id for one in samples()}
    rows = lake.read_rows(Preference, output["preferences"])
    for row in rows:
        of = [worth[one.rollout_id] for one in said.values() if one.sample_id == row.sample_id]
        assert (row.chosen_worth, row.rejected_worth) == pytest.approx((max(of), min(of)))
        assert (row.chosen_text, row.rejected_text) == (said[row.chosen].text, said[row.rejected].text)
        assert row.image_id == image_of[row.sample_id]
    assert output.facts["pairs"] == len(rows) > 3
    assert output.facts["mean_gap"] == pytest.approx(np.mean([r.chosen_worth - r.rejected_worth for r in rows]))
    skipped = sum(output.counters.get(why, 0) for why in ("one_answer", "same_text", "tie", "small_gap"))
    assert len(rows) + skipped == len(samples()), "a prompt without a pair is not counted"


def test_answers_without_a_score_are_left_out_and_counted() -> None:
    (first, *_) = lake.read_rows(Preference, preferred()["preferences"])
    without = changed(lambda row: replace(row, shaped=None) if row.rollout_id == first.chosen else row)
    output = preferred(rewards=without)
    assert output.counters["unranked"] == 1
    assert all(row.chosen != first.chosen for row in lake.read_rows(Preference, output["preferences"]))
    # One scored sentence is enough.
    half = changed(lambda row: replace(row, shaped=None) if (row.rollout_id, row.step) == (first.chosen, 0) else row)
    several = any(r.rollout_id == first.chosen and r.step for r in lake.read_rows(Reward, half))
    assert preferred(rewards=half).counters["unranked"] == (0 if several else 1)


def test_pairs_too_close_are_left_out() -> None:
    gaps = [r.chosen_worth - r.rejected_worth for r in lake.read_rows(Preference, preferred()["preferences"])]
    bound = sorted(gaps)[len(gaps) // 2]
    output = preferred(REWARD.model_copy(update={"min_gap": bound}))
    assert output.facts["pairs"] == sum(gap >= bound for gap in gaps)
    assert output.counters["small_gap"] == sum(gap < bound for gap in gaps)


def test_nothing_to_choose_between_says_why() -> None:
    with pytest.raises(StageInputError, match=r"no prompt has two answers to choose between \(.* small_gap"):
        preferred(REWARD.model_copy(update={"min_gap": 1e9}))
    with pytest.raises(StageInputError, match="no answer has a worth"):
        preferred(rewards=changed(lambda row: replace(row, shaped=None)))


def test_values_need_a_value_model() -> None:
    with pytest.raises(StageInputError, match=r"give prefer value, backbone, model and images, .* finetune\.dpo\.by="):
        preferred(DpoConfig(by="value"))


@pytest.mark.parametrize("kind", ["image_and_text", "policy_states"])
def test_worth_by_value_is_the_mean_of_v_over_the_sentences(kind: str) -> None:
    from tasks.core.models.states import sentence_states
    from tasks.core.models.value import load_state_value, load_value
    from tasks.core.text import split_sentences
    from tasks.models.loading import load_policy

    value = trained()["value"] if kind == "image_and_text" else states()
    output = by_value(value)
    rows = lake.read_rows(Preference, output["preferences"])
    assert len(rows) > 3
    assert output.counters["unranked"] == sum(not one.text.strip() for one in lake.read_rows(Rollout, rollouts()))
    prompt_of = {one.sample_id: one.prompt for one in samples()}
    for row in rows[:2]:
        picture = load_images(drawn()["images"], [row.image_id])[row.image_id]
        if kind == "policy_states":
            head = load_state_value(checkpoints.folder(value), "cpu")
            (read,) = sentence_states(
                load_policy(MODEL, policy(), RUNTIME), [(picture, prompt_of[row.sample_id])], [row.chosen_text],
                layer=-1, batch_size=1,
            )  # fmt: skip
            expected = head(read).mean().item()
        else:
            network = load_value(checkpoints.folder(value), checkpoints.folder(policy()))
            sentences = [one.text for one in split_sentences(row.chosen_text)]
            expected = network([picture] * len(sentences), sentences).mean().item()
        assert row.chosen_worth == pytest.approx(expected, abs=1e-4)
        assert row.chosen_worth > row.rejected_worth
    smaller = by_value(value, runtime=RUNTIME.model_copy(update={"batch_size": 3}))
    worths = [(r.chosen_worth, r.rejected_worth) for r in lake.read_rows(Preference, smaller["preferences"])]
    assert np.allclose(worths, [(r.chosen_worth, r.rejected_worth) for r in rows], atol=1e-3)


def test_a_value_of_prefixes_reads_all_up_to_each_sentence() -> None:
    prefix = trained(VALUE.model_copy(update={"state": "prefix", "train": "frozen", "epochs": 1}))["value"]
    read = sentence_values(prefix, policy(), MODEL, RUNTIME)
    picture = next(iter(load_images(drawn()["images"], [samples()[0].image_id]).values()))

    def of(text: str) -> list[float]:
        return read([SaidAnswer(picture, "Go.", text)])[0]

    both = of("There is a dog. There is a cat.")
    assert both[0] == pytest.approx(of("There is a dog.")[0], abs=1e-4)
    assert both[1] != pytest.approx(of("There is a cat.")[0], abs=1e-4)


@pytest.mark.parametrize("kind", ["image_and_text", "policy_states"])
def test_an_answer_that_says_nothing_has_no_value_and_its_neighbours_keep_theirs(kind: str) -> None:
    value = trained()["value"] if kind == "image_and_text" else states()
    read = sentence_values(value, policy(), MODEL, RUNTIME)
    picture = next(iter(load_images(drawn()["images"], [samples()[0].image_id]).values()))
    said = [SaidAnswer(picture, "Go.", text) for text in ("There is a dog.", " ", "There is a cat.")]
    first, nothing, last = mean_values(read, said)
    assert nothing is None
    assert [first, last] == pytest.approx(mean_values(read, said[::2]), abs=1e-4)
