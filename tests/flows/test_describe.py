"""Who answers `visloop caption --checkpoint champion`: the champion, the base if no round was promoted, and nobody else."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from flows import describe as module
from flows.profiles.loading import load_profile
from storage.artifacts import PolicyCheckpoint, StageOutput
from tasks.models.handles import PolicyHandle
from tasks.search import caption
from tasks.search.caption import TRAINING, latest_trained
from tasks.stage.quarantine import StageInputError

CHAMPION, BASE = PolicyCheckpoint.of("a" * 64), PolicyCheckpoint.of("b" * 64)
PROFILE = load_profile("demo")


@pytest.fixture
def finished(monkeypatch: pytest.MonkeyPatch):
    """Leaves a finished run in which a stage trained a policy in round 1; the store has it or not."""

    def leave(stage: str, champion: str = "round-1", stored: bool = True) -> None:
        run = SimpleNamespace(run_id="run", profile="demo", status="completed", champion=champion)
        row = SimpleNamespace(stage=stage, label="", shard=None, round=1, key="key")
        record = SimpleNamespace(output=StageOutput(refs={"policy": CHAMPION}))
        monkeypatch.setattr(caption.runs, "list_runs", lambda: [run])
        monkeypatch.setattr(caption.runs, "stage_runs", lambda run_id: [row])
        monkeypatch.setattr(caption.records, "load", lambda *_: (record if stored else None, None))
        monkeypatch.setattr(module, "import_policy", lambda path, config: PolicyHandle.of(BASE, config))

    return leave


def champion_of_latest() -> PolicyCheckpoint:
    return module._policy(PROFILE, module.CHAMPION, latest_trained("demo")).checkpoint


@pytest.mark.parametrize("stage", TRAINING)
def test_the_champion_of_every_training_method_is_found(stage: str, finished) -> None:
    finished(stage)
    assert champion_of_latest() == CHAMPION


def test_the_base_answers_where_no_round_was_promoted(finished) -> None:
    finished("finetune", champion="base")
    assert champion_of_latest() == BASE


@pytest.mark.parametrize(("stage", "stored"), [("finetune", False), ("tune_dpo", True)])
def test_the_base_never_answers_for_a_champion_that_is_not_found(stage: str, stored: bool, finished) -> None:
    finished(stage, stored=stored)
    with pytest.raises(
        StageInputError, match=r"champion, round-1, is no longer in the store.*visloop run demo makes one"
    ):
        champion_of_latest()


def test_training_names_the_stages_that_train() -> None:
    from tasks.train.dpo import train_dpo
    from tasks.train.finetune import finetune
    from tasks.train.fisao import train_fisao
    from tasks.train.grpo import train_grpo
    from tasks.train.sentinel import train_sentinel

    trained = (finetune, train_dpo, train_grpo, train_fisao, train_sentinel)
    assert tuple(stage.name for stage in trained) == TRAINING
