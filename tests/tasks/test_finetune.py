"""Finetune: a whole checkpoint comes out, loads like any other, and is what was trained."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_world import FINETUNE, MODEL, RUNTIME, captions_of, drawn, policy

from storage import checkpoints, lake
from storage.artifacts import ArtifactRef, StageOutput
from storage.schema import Caption
from tasks.caching import StageInputError
from tasks.core.models.policy import load_policy
from tasks.finetune import finetune
from tasks.tuning_configs import FinetuneConfig

TEXTS = [
    "There is a dog. There is a cat.",
    "I can see a pizza.",
    "There is a cup.",
    "",
    "There is a car.",
    "",
    "A.",
    "B.",
]


def tuned(config: FinetuneConfig = FINETUNE, captions: ArtifactRef | None = None) -> StageOutput:
    world = drawn(benchmark=True)
    return finetune.fn(
        config, MODEL, policy(), world["images"], world["samples"], captions or captions_of(TEXTS), seed=0,
        runtime=RUNTIME,
    )  # fmt: skip


@pytest.mark.parametrize("train", ["full", "lora"])
def test_a_whole_checkpoint_comes_out_that_loads_like_any_other(train: str) -> None:
    output = tuned(FINETUNE.model_copy(update={"train": train, "lora_rank": 2}))
    folder = checkpoints.folder(output["policy"])
    assert {path.name for path in folder.iterdir()} >= {"config.json", "model.safetensors", "chat_template.jinja"}
    assert not list(folder.glob("adapter*")), "adapters were not merged"
    before = load_policy(checkpoints.folder(policy()), digest="")
    after = load_policy(folder, digest="")
    theirs = dict(after.model.named_parameters())
    changed = {name for name, p in before.model.named_parameters() if not torch.equal(p, theirs[name])}
    assert changed
    assert not any("vision" in name for name in changed)
    assert output.facts["relative_change"] > 0
    assert before.processor.chat_template == after.processor.chat_template


def test_empty_captions_are_counted_and_not_learned() -> None:
    counters = tuned().counters
    assert (counters["examples"], counters["empty_captions"]) == (6, 2)


def test_the_same_captions_give_the_same_checkpoint_and_others_another() -> None:
    rows = lake.read_rows(Caption, captions_of(TEXTS))
    other = lake.publish(Caption, [replace(row, text=row.text and "There is a bus.") for row in rows])
    assert tuned().digest == tuned().digest
    assert tuned(captions=other)["policy"] != tuned()["policy"]


def test_nothing_to_learn_says_where_to_look() -> None:
    with pytest.raises(StageInputError, match="every searched caption is empty"):
        tuned(captions=captions_of([""] * 8))


def test_a_checkpoint_that_does_not_reload_to_what_was_trained_is_not_kept(monkeypatch) -> None:
    from tasks.core.models import policy as module

    def forgetful(folder, **options):
        loaded = load_policy(folder, **options)
        with torch.no_grad():
            loaded.model.get_input_embeddings().weight.mul_(1.1)
        return loaded

    monkeypatch.setattr(module, "load_policy", forgetful)
    # The policy itself was loaded through the same function: only the reload check compares two of them.
    monkeypatch.setattr("tasks.finetune.fresh_policy", lambda *_: load_policy(checkpoints.folder(policy()), digest=""))
    with pytest.raises(RuntimeError, match="does not reload to what was trained: logits differ by"):
        tuned()
