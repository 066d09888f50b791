"""Rollouts: an answer a sample and decode, the same however they are batched and sharded."""

from __future__ import annotations

import pytest

from storage import lake
from storage.artifacts import PolicyCheckpoint
from storage.checkpoints import import_checkpoint
from storage.schema import Image, Rollout, Sample
from tasks.configs.rollout import RolloutConfig
from tasks.models.handles import PolicyHandle
from tasks.rollout.rollout import decode_names, rollout
from tasks.stage.runtime import current_runtime, use_runtime
from tests.support.paths import DEMO
from tests.support.small_world import ROLLOUT, drawn, policy, rolled, rollouts, samples


def test_every_sample_has_an_answer_a_decode() -> None:
    rows = lake.read_rows(Rollout, rollouts())
    assert {(row.sample_id, row.decode) for row in rows} == {
        (sample.sample_id, name) for sample in samples() for name in ("greedy", "t0.7")
    }
    assert len(rows) == 2 * len(samples()) == len({row.rollout_id for row in rows})
    assert all(row.text == row.text.strip() != "" for row in rows)
    assert {row.policy for row in rows} == {policy().checkpoint.digest}
    assert {(row.decode, row.temperature) for row in rows} == {("greedy", 0.0), ("t0.7", 0.7)}


@pytest.mark.parametrize("shards", [1, 4])
@pytest.mark.parametrize("batch_size", [1, 16])
def test_shards_and_batch_size_change_no_digest(home, shards: int, batch_size: int) -> None:
    # In a new store, so that nothing comes from the cache.
    home.mkdir(exist_ok=True)
    policy = PolicyHandle(import_checkpoint(PolicyCheckpoint, str(DEMO / "policy")))
    images, samples = lake.publish(Image, _IMAGES), lake.publish(Sample, _SAMPLES)
    with use_runtime(current_runtime().model_copy(update={"batch_size": batch_size, "shards": shards})):
        output = rollout.over_shards(ROLLOUT, policy, images, samples, seed=0)
    assert output.rollouts.digest == _DIGEST


@pytest.fixture(autouse=True, scope="module")
def _before_stores_change(_store_of_the_session) -> None:
    global _IMAGES, _SAMPLES, _DIGEST
    _IMAGES, _SAMPLES = lake.read_rows(Image, drawn().images), samples()
    _DIGEST = rollouts().digest


def test_another_seed_changes_the_sampled_answers_only() -> None:
    world = drawn()
    other = rollout.fn(ROLLOUT, policy(), world.images, world.samples, seed=1)
    mine = {row.rollout_id: row.text for row in lake.read_rows(Rollout, rollouts())}
    there = {row.rollout_id: row.text for row in lake.read_rows(Rollout, other.rollouts)}
    differ = {rollout_id for rollout_id in mine if mine[rollout_id] != there[rollout_id]}
    assert differ
    assert all(rollout_id.endswith("t0.7") for rollout_id in differ)


def test_a_further_temperature_leaves_the_other_answers_as_they_are() -> None:
    config, world = RolloutConfig(temperatures=(1.0, 0.7), max_new_tokens=80), drawn()
    more = rollout.fn(config, policy(), world.images, world.samples, seed=0)
    mine = {row.rollout_id: row.text for row in lake.read_rows(Rollout, rollouts())}
    there = {row.rollout_id: row.text for row in lake.read_rows(Rollout, more.rollouts)}
    assert {rollout_id: there[rollout_id] for rollout_id in mine} == mine


def test_an_answer_at_the_token_limit_has_that_finish_reason() -> None:
    config, world = RolloutConfig(temperatures=(), max_new_tokens=4), drawn()
    output = rollout.fn(config, policy(), world.images, world.samples, seed=0)
    assert {(row.finish_reason, row.n_tokens) for row in lake.read_rows(Rollout, output.rollouts)} == {("length", 4)}
    assert {row.finish_reason for row in lake.read_rows(Rollout, rollouts())} <= {"stop", "length"}
    assert "stop" in {row.finish_reason for row in lake.read_rows(Rollout, rollouts())}


def test_work_does_not_depend_on_the_batch_where_it_need_not() -> None:
    with use_runtime(current_runtime().model_copy(update={"batch_size": 1})):
        singly = rolled().counters
    all_at_once = rolled().counters
    for name in ("vision_encodes", "prefill_tokens", "decode_tokens"):
        assert singly[name] == all_at_once[name]
    assert singly["vision_encodes"] == len(samples()), "an image was encoded once for every answer"
    assert singly["forwards"] > all_at_once["forwards"]


def test_a_temperature_named_twice_is_drawn_twice() -> None:
    assert decode_names(RolloutConfig(temperatures=(0.5, 0.5, 1.0))) == [
        ("greedy", 0.0), ("t0.5", 0.5), ("t0.5-2", 0.5), ("t1", 1.0),
    ]  # fmt: skip
    assert decode_names(RolloutConfig(greedy=False, temperatures=(0.2,))) == [("t0.2", 0.2)]
