"""Training by preferences: a whole checkpoint comes out, further from the rejected answers than the policy was."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from storage import checkpoints, lake
from storage.artifacts import Table
from storage.schema import Preference
from tasks.configs.train import DpoConfig, DpoSettings, switch_method
from tasks.core.models.policy import load_policy
from tasks.stage.quarantine import StageInputError
from tasks.train.dpo import train_dpo
from tasks.train.prefer import prefer
from tasks.train.training import TrainResult
from tests.support.small_world import FINETUNE, drawn, policy, rollouts, shaped

CONFIG = switch_method(FINETUNE, DpoConfig, batch_size=4)


@cache
def preferences() -> Table[Preference]:
    config, world = DpoSettings(by="reward"), drawn()
    pairs = prefer.fn(config, world.samples, rollouts(), shaped().rewards).preferences
    return lake.publish(Preference, lake.read_rows(Preference, pairs)[:4])


def trained(pairs: Table[Preference] | None = None, **changes: object) -> TrainResult:
    config, world = CONFIG.model_copy(update=changes), drawn()
    return train_dpo.fn(config, policy(), world.images, world.samples, pairs or preferences(), seed=0)


@pytest.mark.parametrize("train", ["full", "lora"])
def test_a_whole_checkpoint_comes_out_that_prefers_what_was_better(train: str) -> None:
    output = trained(train=train, lora_rank=2, epochs=3.0, lr=1e-3 if train == "lora" else 1e-4)
    folder = checkpoints.folder(output.policy)
    assert {path.name for path in folder.iterdir()} >= {"config.json", "model.safetensors", "chat_template.jinja"}
    assert not list(folder.glob("adapter*")), "adapters were not merged"
    before, after = (load_policy(checkpoints.folder(ref), digest="") for ref in (policy().checkpoint, output.policy))
    assert before.processor.chat_template == after.processor.chat_template
    assert output.figures["relative_change"] > 0
    assert output.figures["margin_last"] > output.figures["margin_first"]
    assert output.counters == {
        "pairs": len(lake.read_rows(Preference, preferences())),
        "empty_chosen": 0,
        "untrainable": 0,
    }


def test_the_same_preferences_give_the_same_checkpoint_and_another_beta_another() -> None:
    first, again, other = (trained(epochs=2.0, dpo=DpoSettings(beta=beta)) for beta in (0.1, 0.1, 5.0))
    assert first.policy == again.policy
    assert other.policy != again.policy


def test_pairs_whose_better_answer_is_empty_are_left_out_and_counted() -> None:
    first, *others = lake.read_rows(Preference, preferences())
    mixed = lake.publish(Preference, [replace(first, chosen_text=" "), *others])
    assert trained(mixed).counters == {"pairs": len(others), "empty_chosen": 1, "untrainable": 0}
    with pytest.raises(StageInputError, match="every better answer is empty"):
        trained(lake.publish(Preference, [replace(first, chosen_text="")]))
