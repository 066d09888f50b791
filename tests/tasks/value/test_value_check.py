"""The check of V on held-out sentences as the stage makes it: what fails, what warns, what the table says."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from storage import lake
from storage.schema import Reward, Value
from tasks.value.held_out import ValueCollapsed
from tests.support.small_world import VALUE, samples, shaped, trained


@pytest.mark.parametrize(
    ("config", "needs"),
    [
        ({"min_spread": 10.0}, r"spread is .* \(at least 10\)"),
        ({"min_spearman": 0.0}, r"only \d held-out images .* \(at least 10\)"),
    ],
)
def test_collapsed_values_fail_and_the_error_names_the_settings(config: dict, needs: str) -> None:
    with pytest.raises(ValueCollapsed, match=needs) as error:
        trained(VALUE.model_copy(update={**config, "train": "frozen", "epochs": 1}))
    for remedy in ("sample.images", "value.lr", "--set search.strategy=clip_prm", "--set value.action=warn"):
        assert remedy in str(error.value)


def test_rewards_that_never_differ_teach_nothing_and_fail() -> None:
    flat = lake.publish(Reward, [replace(row, shaped=0.3) for row in lake.read_rows(Reward, shaped().rewards)])
    with pytest.raises(ValueCollapsed, match=r"the returns of all .* held-out sentences are the same"):
        trained(VALUE.model_copy(update={"train": "frozen", "epochs": 1}), flat)


def test_a_failed_check_that_only_warns_gives_a_model_and_the_problem(caplog) -> None:
    config = VALUE.model_copy(update={"min_spearman": 0.0, "action": "warn", "train": "frozen", "epochs": 1})
    output = trained(config)
    assert re.match(r"only \d held-out images", output.problem) and output.problem in caplog.text
    assert trained(config.model_copy(update={"min_spearman": -1.0})).problem == ""
    assert output.health["pairs"] > 0 and -1 <= output.health["rank_within"] <= 1


@pytest.mark.parametrize("state", ["sentence", "prefix"])
def test_equal_sentences_of_an_image_are_one_state_unless_v_reads_what_came_before(state: str) -> None:
    config = VALUE.model_copy(update={"state": state, "train": "frozen", "epochs": 1})
    texts = {(row.rollout_id, row.step): row.sentence for row in lake.read_rows(Reward, shaped().rewards)}
    by_state: dict[tuple[str, str], set] = {}
    for row in lake.read_rows(Value, trained(config).values):
        read = [texts[row.rollout_id, step] for step in range(0 if state == "prefix" else row.step, row.step + 1)]
        by_state.setdefault((row.image_id, row.state), set()).add(tuple(read))
        assert row.gamma == config.gamma
    assert all(len(read) == 1 for read in by_state.values())
    images = {image for image, _ in by_state}
    assert images == {sample.image_id for sample in samples() if sample.split == "val"}


@pytest.mark.parametrize("mode", ["mean_to_go", "zero_terminal"])
def test_without_a_future_v_is_regressed_on_rewards_and_reads_no_next_sentence(mode: str) -> None:
    config = VALUE.model_copy(update={"gamma": 0.0, "terminal": mode, "train": "frozen", "epochs": 1})
    output, whole = trained(config), trained(config.model_copy(update={"target": "mc"}))
    assert output.value == whole.value and output.counters["value_tokens"] == whole.counters["value_tokens"]
    assert all(row.td_target == pytest.approx(row.reward) for row in lake.read_rows(Value, output.values))
    assert all(row.mc_return == pytest.approx(row.reward) for row in lake.read_rows(Value, output.values))
