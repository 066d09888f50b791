"""train_value: judged on what it never saw, loud when it learned nothing."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from storage import checkpoints, lake
from storage.artifacts import Table
from storage.schema import Reward, Rollout, Value
from tasks.configs.value import ValueConfig
from tasks.core.models.value import load_state_value, read_spec
from tasks.core.value.td import TERMINAL_MODES, mc_returns
from tasks.stage.quarantine import StageInputError
from tasks.stage.runtime import current_runtime, use_runtime
from tasks.value import train_value as stage
from tasks.value.held_out import ValueCollapsed
from tasks.value.train_value import ValueResult
from tests.support.small_world import VALUE, drawn, policy, rollouts, samples, shaped, trained


def rewards(change=lambda row: row) -> Table[Reward]:
    return lake.publish(Reward, [change(row) for row in lake.read_rows(Reward, shaped().rewards)])


STATES = VALUE.model_copy(update={"reads": "policy_states", "epochs": 10})
TARGETS = ("td0", "td_lambda", "mc")


def of_states(config: ValueConfig = STATES) -> ValueResult:
    """A head on the policy's states."""
    world = drawn()
    return stage.train_value.fn(config, policy(), world.images, world.samples, rewards(), rollouts=rollouts(), seed=0)


def die(name: str) -> None:
    raise InterruptedError


@pytest.mark.parametrize("train", [trained, of_states])
def test_every_held_out_sentence_is_judged_and_no_other(train) -> None:
    output = train()
    held = {sample.sample_id for sample in samples() if sample.split == "val"}
    expected = {(row.rollout_id, row.step) for row in lake.read_rows(Reward, rewards()) if row.sample_id in held}
    rows = lake.read_rows(Value, output.values)
    assert {(row.rollout_id, row.step) for row in rows} == expected
    assert output.health["held_out"] == len(rows) > 0
    assert output.counters["transitions"] == rewards().rows - len(rows)
    assert output.spread == pytest.approx(np.std([row.value for row in rows]))
    assert 0 < output.health["within_image_spread"] <= output.spread + 1e-9
    assert output.health["loss_first"] > 0 and output.health["loss_last"] > 0


@pytest.mark.parametrize("mode", TERMINAL_MODES)
def test_returns_and_targets_of_the_table_are_those_of_the_rewards(mode: str) -> None:
    config = VALUE.model_copy(update={"terminal": mode, "epochs": 1, "train": "frozen"})
    output = trained(config)
    by_rollout: dict[str, list[Value]] = {}
    for row in lake.read_rows(Value, output.values):
        by_rollout.setdefault(row.rollout_id, []).append(row)
    shaped = {(row.rollout_id, row.step): row.shaped for row in lake.read_rows(Reward, rewards())}
    for rollout_id, rows in by_rollout.items():
        assert [row.reward for row in rows] == [shaped[rollout_id, row.step] for row in rows]
        returns = mc_returns([row.reward for row in rows], gamma=config.gamma, mode=mode)
        assert [row.mc_return for row in rows] == pytest.approx(returns)
        assert rows[-1].td_target == pytest.approx(rows[-1].reward, abs=1e-5)
        for row, after in pairwise(rows):
            if mode != "mean_to_go":
                follows = max(0.0, after.value) if mode == "optimal_stopping" else after.value
                assert row.td_target == pytest.approx(row.reward + config.gamma * follows, abs=1e-4)
            else:
                low, high = sorted([row.reward, after.value])
                assert low - 1e-4 <= row.td_target <= high + 1e-4


def test_the_same_training_gives_the_same_model_and_another_seed_another() -> None:
    assert trained() == trained()
    assert trained(VALUE.model_copy(update={"lr": 2e-3})).value != trained().value


def test_the_spec_holds_how_the_model_was_built() -> None:
    config = VALUE.model_copy(update={"train": "lora", "state": "prefix", "lora_rank": 2, "layer": -2, "epochs": 1})
    spec = read_spec(checkpoints.folder(trained(config).value))
    assert (spec.train, spec.state, spec.lora_rank, spec.layer) == ("lora", "prefix", 2, -2)


def test_answers_with_an_unscored_sentence_are_left_out() -> None:
    rows = lake.read_rows(Reward, rewards())
    training = {sample.sample_id for sample in samples() if sample.split == "train"}
    gone = next(row.rollout_id for row in rows if row.sample_id in training)
    fewer = trained(
        VALUE.model_copy(update={"train": "frozen", "epochs": 1}),
        rewards(lambda row: replace(row, shaped=None) if (row.rollout_id, row.step) == (gone, 0) else row),
    )
    assert trained().counters["transitions"] - fewer.counters["transitions"] == sum(r.rollout_id == gone for r in rows)


def test_without_an_end_answers_of_one_sentence_have_no_transitions() -> None:
    first = lake.publish(Reward, [row for row in lake.read_rows(Reward, rewards()) if row.step == 0])
    with pytest.raises(StageInputError, match="every answer has one sentence at most"):
        trained(VALUE.model_copy(update={"terminal": "bootstrap_forever"}), first)


def test_training_goes_on_from_the_last_step_file_and_ends_the_same(tmp_path, monkeypatch) -> None:
    whole = trained(VALUE.model_copy(update={"checkpoint_steps": 2}))
    monkeypatch.setattr(stage, "resume_folder", lambda: tmp_path)
    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(stage, "fault_point", die)
        trained(VALUE.model_copy(update={"checkpoint_steps": 3}))
    (file,) = tmp_path.glob("*")
    step = int(file.stem.split("-")[1])
    assert file.name == f"step-{step:08d}.safetensors"
    (tmp_path / "step-00000999.part").write_bytes(b"half")  # as left by a kill while saving
    resumed = trained(VALUE.model_copy(update={"checkpoint_steps": 3}))
    assert resumed == whole
    assert resumed.counters["value_tokens"] < whole.counters["value_tokens"]


# What V is regressed on


@pytest.mark.parametrize("mode", TERMINAL_MODES)
@pytest.mark.parametrize("target", TARGETS)
def test_every_target_learns_to_rank_in_every_terminal_mode(target: str, mode: str) -> None:
    output = of_states(STATES.model_copy(update={"target": target, "terminal": mode, "lr": 1e-3}))
    assert output.spearman > 0.15
    assert output.health["loss_last"] < output.health["loss_first"]


def test_targets_differ_and_so_do_traces_between_them() -> None:
    outputs = {target: of_states(STATES.model_copy(update={"target": target})) for target in TARGETS}
    assert len({output.value.digest for output in outputs.values()}) == 3
    other = of_states(STATES.model_copy(update={"target": "td_lambda", "trace": 0.2}))
    assert other.value != outputs["td_lambda"].value
    for output in outputs.values():
        assert output.counters["transitions"] == outputs["td0"].counters["transitions"]
    ignored = of_states(STATES.model_copy(update={"target": "mc", "target_decay": 0.5, "trace": 0.1}))
    assert ignored.value == outputs["mc"].value, "Monte Carlo has neither"


def test_monte_carlo_reads_each_sentence_once_a_step() -> None:
    """A bootstrap reads the next sentence as well."""
    config = VALUE.model_copy(update={"train": "frozen", "epochs": 1})
    tokens = {
        target: trained(config.model_copy(update={"target": target})).counters["value_tokens"] for target in TARGETS
    }
    assert tokens["mc"] < 0.75 * tokens["td0"]
    assert tokens["td_lambda"] == tokens["td0"]


@pytest.mark.parametrize("target", TARGETS)
def test_a_killed_training_of_any_target_ends_with_the_same_facts(target: str, tmp_path, monkeypatch) -> None:
    config = STATES.model_copy(update={"target": target, "checkpoint_steps": 3})
    whole = of_states(config)
    monkeypatch.setattr(stage, "resume_folder", lambda: tmp_path)
    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(stage, "fault_point", die)
        of_states(config)
    assert list(tmp_path.glob("step-*.safetensors"))
    assert of_states(config) == whole, "the first losses were lost"


def test_as_published_other_settings_count_for_nothing_and_rewards_are_mixed_up() -> None:
    config = STATES.model_copy(update={"published": True, "terminal": "bootstrap_forever"})
    published = of_states(config)
    other = config.model_copy(update={"target": "mc", "terminal": "mean_to_go", "target_decay": 0.3, "trace": 0.1})
    assert of_states(other) == published
    plain = of_states(STATES.model_copy(update={"terminal": "bootstrap_forever", "target_decay": 0.0}))
    assert published.counters["transitions"] == plain.counters["transitions"] < of_states().counters["transitions"]
    assert published.spearman < plain.spearman


def test_a_mean_over_the_text_is_another_value_and_is_in_the_spec() -> None:
    config = VALUE.model_copy(update={"pooling": "mean", "train": "frozen", "epochs": 1})
    output = trained(config)
    assert read_spec(checkpoints.folder(output.value)).pooling == "mean"
    assert output.values != trained(config.model_copy(update={"pooling": "last"})).values
    ignored = STATES.model_copy(update={"pooling": "mean"})
    assert of_states(ignored) == of_states()


@pytest.mark.parametrize("train", [trained, of_states])
def test_a_layer_that_the_backbone_does_not_have_is_the_profiles_mistake(train) -> None:
    config = (VALUE if train is trained else STATES).model_copy(update={"layer": -40})
    with pytest.raises(StageInputError, match=r"value\.layer is -40: the language model has \d+ layers"):
        train(config)


def test_a_learning_rate_that_diverges_fails_and_the_error_names_the_setting() -> None:
    config = STATES.model_copy(update={"lr": 1.0, "terminal": "zero_terminal", "target_decay": 0.0})
    with pytest.raises(ValueCollapsed, match=r"its loss grew from .*Lower value\.lr.*\(value\.lr was 1\.\)"):
        of_states(config)


def test_a_training_that_diverges_fails_and_the_error_names_the_setting() -> None:
    huge = rewards(lambda row: replace(row, shaped=3e38))
    with pytest.raises(ValueCollapsed, match=r"training broke off: step 0: the TD loss is inf; lower value\.lr"):
        trained(VALUE.model_copy(update={"train": "frozen", "epochs": 1}), huge)


# V on the policy's own states


def test_a_head_on_the_policys_states_learns_to_rank() -> None:
    output = of_states()
    assert output.spearman > 0.2  # the demo's scorer errs, and its errors are no function of the states
    assert output.health["held_out"] > 20


def test_its_values_are_those_of_the_states_in_which_sentences_end() -> None:
    from tasks.core.models.states import sentence_states
    from tasks.models.loading import load_images, load_policy

    output = of_states()
    head = load_state_value(checkpoints.folder(output.value), "cpu")
    assert (head.spec.reads, head.spec.backbone, head.spec.state) == (
        "policy_states",
        policy().checkpoint.digest,
        "prefix",
    )
    rows = lake.read_rows(Value, output.values)
    (answer,) = [row for row in lake.read_rows(Rollout, rollouts()) if row.rollout_id == rows[0].rollout_id]
    (sample,) = [row for row in samples() if row.sample_id == answer.sample_id]
    (states,) = sentence_states(
        load_policy(policy()),
        [(load_images(drawn().images, [sample.image_id])[sample.image_id], sample.prompt)],
        [answer.text],
        layer=-1,
        batch_size=1,
    )
    mine = [row.value for row in rows if row.rollout_id == answer.rollout_id]
    assert head(states).tolist() == pytest.approx(mine, abs=1e-4)


def test_the_policy_reads_every_answer_once_and_the_head_nothing() -> None:
    counters = of_states().counters
    assert counters["value_tokens"] == 0
    assert counters["states_tokens"] > sum(answer.n_tokens for answer in lake.read_rows(Rollout, rollouts()))
    assert of_states(STATES.model_copy(update={"epochs": 1})).counters["states_tokens"] == counters["states_tokens"]
    assert trained().counters["states_tokens"] == 0


def test_what_has_no_meaning_for_states_changes_nothing() -> None:
    other = STATES.model_copy(update={"train": "frozen", "state": "prefix", "lora_rank": 2})
    assert of_states(other) == of_states()
    values = lake.read_rows(Value, of_states().values)
    with use_runtime(current_runtime().model_copy(update={"batch_size": 5})):
        others = lake.read_rows(Value, of_states().values)
    assert [row.value for row in values] == pytest.approx([row.value for row in others], abs=1e-3)


def test_a_head_on_states_fits_on_from_the_last_step_file(tmp_path, monkeypatch) -> None:
    whole = of_states()
    monkeypatch.setattr(stage, "resume_folder", lambda: tmp_path)
    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(stage, "fault_point", die)
        of_states(STATES.model_copy(update={"checkpoint_steps": 3}))
    assert len(list(tmp_path.glob("step-*.safetensors"))) == 1
    assert of_states(STATES.model_copy(update={"checkpoint_steps": 3})) == whole


def test_states_can_not_be_read_without_the_answers() -> None:
    with pytest.raises(StageInputError, match="give train_value the rollouts table too"):
        trained(STATES)


def test_without_a_scored_answer_there_is_nothing_to_learn_from() -> None:
    with pytest.raises(StageInputError, match="no answer to learn from"):
        trained(VALUE, rewards(lambda row: replace(row, shaped=None)))
