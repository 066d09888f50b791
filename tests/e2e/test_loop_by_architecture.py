"""The whole loop, by fine-tuning and by preferences, on tiny checkpoints of architectures that differ most from the demo's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from storage import checkpoints, runs
from storage.artifacts import PolicyCheckpoint
from tasks.core.models.policy import load_policy
from tasks.stage.calls import run_recording
from tests.support.tiny_models import save_tiny
from tests.support.tiny_run import calls, tiny

LITTLE = (
    "sample.images=8",
    "rollout.temperatures=[0.7, 1.0]",
    "rollout.max_new_tokens=24",
    "value.epochs=1",
    "search.candidates=2",
    "search.max_sentences=2",
    "search.max_new_tokens=24",
    "finetune.epochs=1",
    "evaluate.images=6",
    "evaluate.bootstrap=100",
    "evaluate.decodings=[greedy]",
)
TRAINED_BY = {"sft": "finetune", "dpo": "train_dpo"}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in ("qwen3_vl", "mllama") else pytest.mark.long)
        for name in ("qwen3_vl", "internvl", "gemma3", "qwen3_5", "mllama")
    ],
)
def test_a_round_by_sft_and_a_round_by_dpo_give_policies_that_load(name: str, home: Path, tmp_path: Path) -> None:
    from flows.self_training import improve

    folder = save_tiny(name, tmp_path / name)
    digests = set()
    for method, stage in TRAINED_BY.items():
        profile = tiny(*LITTLE, f"policy.checkpoint={folder}", f"finetune.method={method}")
        run_id = runs.start_run(profile.name, profile.model_dump_json())
        with run_recording(run_id):
            improve(profile, run_id)
        done = {call.stage: call for call in calls(run_id)}
        assert {"rollout", "train_value", stage, "search", "evaluate"} <= done.keys()
        digest = json.loads(done[stage].outputs)["policy"]["digest"]
        trained = load_policy(checkpoints.folder(PolicyCheckpoint.of(digest)), digest=digest)
        assert trained.end_ids == load_policy(folder, digest="").end_ids
        digests.add(digest)
    assert len(digests) == 2
