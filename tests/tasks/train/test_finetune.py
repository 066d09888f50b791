"""Finetune: a whole checkpoint comes out, loads like any other, and is what was trained."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from storage import checkpoints, lake
from storage.artifacts import Table
from storage.schema import Caption, Sample
from tasks.configs.train import ReplayConfig, SftConfig
from tasks.core.models.policy import load_policy
from tasks.core.train import sft
from tasks.stage.quarantine import StageInputError
from tasks.train.finetune import finetune
from tasks.train.replay import Replay
from tasks.train.training import TrainResult
from tests.support.small_world import FINETUNE, captions_of, drawn, policy, samples

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

FACTS = {"relative_change": 0.1, "surviving_share": 1.0, "saved_in_float32": 0.0}


def trained(
    config: SftConfig = FINETUNE, captions: Table[Caption] | None = None, replay: Replay | None = None
) -> TrainResult:
    world, captions = drawn(benchmark=True), captions or captions_of(TEXTS)
    return finetune.fn(config, policy(), world.images, world.samples, captions, seed=0, replay=replay)


def others() -> Replay:
    """Answers about the round's images, one of them empty."""
    world = drawn()
    rows = [
        Caption(sample.sample_id, sample.image_id, "p", "greedy", f"Other {i}." if i else "", 1, "end", 1, 1)
        for i, sample in enumerate(samples())
    ]
    return Replay(world.images, world.samples, lake.publish(Caption, rows))


def replaying(share: float) -> SftConfig:
    return FINETUNE.model_copy(update={"replay": ReplayConfig(share=share)})


@pytest.mark.parametrize("train", ["full", "lora"])
def test_a_whole_checkpoint_comes_out_that_loads_like_any_other(train: str) -> None:
    output = trained(FINETUNE.model_copy(update={"train": train, "lora_rank": 2}))
    folder = checkpoints.folder(output.policy)
    assert {path.name for path in folder.iterdir()} >= {"config.json", "model.safetensors", "chat_template.jinja"}
    assert not list(folder.glob("adapter*")), "adapters were not merged"
    before = load_policy(checkpoints.folder(policy().checkpoint), digest="")
    after = load_policy(folder, digest="")
    theirs = dict(after.model.named_parameters())
    changed = {name for name, p in before.model.named_parameters() if not torch.equal(p, theirs[name])}
    assert changed
    assert not any("vision" in name for name in changed)
    assert output.figures["relative_change"] > 0
    assert before.processor.chat_template == after.processor.chat_template


def test_empty_captions_are_counted_and_not_learned() -> None:
    counters = trained().counters
    assert (counters["examples"], counters["empty_captions"]) == (6, 2)


def test_the_same_captions_give_the_same_checkpoint_and_others_another() -> None:
    rows = lake.read_rows(Caption, captions_of(TEXTS))
    other = lake.publish(Caption, [replace(row, text=row.text and "There is a bus.") for row in rows])
    assert trained() == trained()
    assert trained(captions=other).policy != trained().policy


def test_nothing_to_learn_is_an_error_that_names_the_table() -> None:
    with pytest.raises(StageInputError, match="every searched caption is empty"):
        trained(captions=captions_of([""] * 8))


def test_a_checkpoint_that_does_not_reload_to_what_was_trained_is_not_published(monkeypatch) -> None:
    from tasks.core.models import policy as module

    def load_changed(folder, **options):
        loaded = load_policy(folder, **options)
        with torch.no_grad():
            loaded.model.get_input_embeddings().weight.mul_(1.1)
        return loaded

    monkeypatch.setattr(module, "load_policy", load_changed)
    # The policy itself was loaded through the same function: only the reload check compares two of them.
    monkeypatch.setattr(
        "tasks.train.finetune.fresh_policy", lambda *_: load_policy(checkpoints.folder(policy().checkpoint), digest="")
    )
    with pytest.raises(RuntimeError, match="does not reload to what was trained: logits differ by"):
        trained()


def test_a_share_of_the_examples_is_replayed_with_its_own_images_and_prompts(monkeypatch) -> None:
    learned = []
    monkeypatch.setattr(sft, "train_sft", lambda policy, examples, *_, **__: learned.extend(examples) or FACTS)
    counters = trained(replaying(0.25), replay=others()).counters
    assert counters == {
        "examples": 8, "later_turns": 0, "replayed": 2, "replay_lacking": 0, "empty_captions": 2, "untrainable": 0,
    }  # fmt: skip
    texts = [example.answer for example in learned]
    assert [text for text in texts if not text.startswith("Other")] == [text for text in TEXTS if text]
    prompts = {f"Other {i}.": sample.prompt for i, sample in enumerate(samples())}
    assert all(prompts[example.answer] == example.prompt for example in learned if example.answer in prompts)
    assert len({text for text in texts if text in prompts}) == 2


def test_answers_of_one_conversation_are_one_example(monkeypatch) -> None:
    learned = []
    monkeypatch.setattr(sft, "train_sft", lambda policy, examples, *_, **__: learned.extend(examples) or FACTS)
    first, second, *rest = samples(benchmark=True)
    second = replace(second, image_id=first.image_id, follows=first.sample_id)
    captions = lake.read_rows(Caption, captions_of(TEXTS))
    (moved,) = [row for row in captions if row.sample_id == second.sample_id]
    captions[captions.index(moved)] = replace(moved, image_id=first.image_id)
    output = finetune.fn(
        FINETUNE, policy(), drawn(benchmark=True).images, lake.publish(Sample, [first, second, *rest]),
        lake.publish(Caption, captions), seed=0,
    )  # fmt: skip
    assert (output.counters["examples"], output.counters["later_turns"]) == (5, 1)
    (talk,) = [example for example in learned if example.later]
    assert (talk.prompt, talk.answer, talk.later) == (first.prompt, TEXTS[0], ((second.prompt, TEXTS[1]),))


def test_too_little_to_replay_is_used_as_a_whole_and_counted(monkeypatch) -> None:
    monkeypatch.setattr(sft, "train_sft", lambda *_, **__: dict(FACTS))
    counters = trained(replaying(0.9), replay=others()).counters
    assert (counters["replayed"], counters["replay_lacking"]) == (15, 54 - 15)


def test_a_share_without_material_is_an_error_and_of_material_without_a_share_nothing_is_learned(monkeypatch) -> None:
    with pytest.raises(StageInputError, match=r"finetune.replay.share is 0.5, but there is nothing to replay"):
        trained(replaying(0.5))
    monkeypatch.setattr(sft, "train_sft", lambda *_, **__: dict(FACTS))
    assert trained(replay=others()).counters["examples"] == 6


def test_replayed_examples_are_trained_on() -> None:
    replayed, plain = trained(replaying(0.5), replay=others()), trained()
    assert replayed.figures["steps"] == 2 * plain.figures["steps"]
    assert replayed.policy != plain.policy


def test_a_caption_with_the_text_of_special_tokens_is_learned() -> None:
    texts = ["The page says <image> in a box.", "He wrote </s> and went on.", *TEXTS[2:]]
    output = trained(captions=captions_of(texts))
    assert (output.counters["examples"], output.counters["untrainable"]) == (6, 0)
    assert output.figures["relative_change"] > 0
