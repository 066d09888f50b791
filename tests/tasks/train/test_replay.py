"""Replayed material: valid files, lines that can't be used, and the share that is replayed."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import PIL.Image
import pytest

from storage import lake
from storage.schema import Caption, Image, Quarantined, Sample
from tasks.configs.data import SampleConfig
from tasks.stage.quarantine import StageInputError, TooManyQuarantined
from tasks.train.replay import Replay, ReplayResult, draw_replayed, open_replay, read_replay, replay_count

LENIENT = SampleConfig(max_quarantined=1.0)


def line(image: object = "pictures/0.png", *turns: str, **more: object) -> str:
    texts = turns or ("<image>\nWhat?", "That.")
    conversation = [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]
    return json.dumps({"image": image, "conversations": conversation} | more)


def written(folder: Path, lines: list[str]) -> str:
    (folder / "pictures").mkdir(exist_ok=True)
    for number in range(3):
        PIL.Image.new("RGB", (32, 24), (number * 80, 0, 0)).save(folder / "pictures" / f"{number}.png")
    (folder / "pictures" / "broken.png").write_bytes(b"no image")
    path = folder / "chats.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def read(source: str, count: int = 100, config: SampleConfig = LENIENT, seed: int = 0) -> ReplayResult:
    return read_replay.fn(config, open_replay(source), count=count, seed=seed)


def material(output: ReplayResult) -> Replay:
    return Replay(output.images, output.samples, output.captions)


TALK = ("What is it?\n<image>", " A dog. ", "And its colour?", "Brown.", "And this one, unanswered?")


def test_all_exchanges_are_read_without_the_image_placeholder(tmp_path: Path) -> None:
    output = read(written(tmp_path, [line("pictures/1.png", *TALK), "", line()]))
    rows = {row.prompt: row for row in lake.read_rows(Sample, output.samples)}
    texts = {row.sample_id: (row.image_id, row.text) for row in lake.read_rows(Caption, output.captions)}
    assert {prompt: texts[row.sample_id] for prompt, row in rows.items()} == {
        "What is it?": ("pictures/1.png", "A dog."), "And its colour?": ("pictures/1.png", "Brown."),
        "What?": ("pictures/0.png", "That."),
    }  # fmt: skip
    assert rows["And its colour?"].follows == rows["What is it?"].sample_id
    assert rows["What is it?"].follows is rows["What?"].follows is None
    assert output.counters == {"lines": 2, "later_exchanges": 1}
    assert {row.image_id for row in lake.read_rows(Image, output.images)} == {"pictures/0.png", "pictures/1.png"}


BAD = {
    "not_json": ["{", "[1]"],
    "no_image": [line(None), line("")],
    "no_file": [line("pictures/9.png")],
    "unreadable": [line("pictures/broken.png")],
    "no_exchange": [line("pictures/0.png", "What?"), line(conversations=7), line(conversations=[7, 8])],
    "several_images": [
        line("pictures/0.png", "<image><image> Compare.", "Alike."),
        line("pictures/0.png", "<image>What?", "That.", "<image>And this?", "This."),
    ],
    "empty": [
        line("pictures/0.png", "<image>\n", "That."),
        line("pictures/0.png", "What?", " "),
        line("pictures/0.png", "What?", "That.", "And?", ""),
    ],
}


def test_lines_that_can_not_be_used_are_in_quarantine_with_their_reason(tmp_path: Path) -> None:
    lines = [line(), *(text for texts in BAD.values() for text in texts)]
    output = read(written(tmp_path, lines))
    refused = [(row.stage, row.reason) for row in lake.read_rows(Quarantined, output.quarantine)]
    assert sorted(refused) == sorted(("read_replay", reason) for reason, texts in BAD.items() for _ in texts)
    assert len(lake.read_rows(Caption, output.captions)) == 1


def test_a_refused_line_is_replaced_by_another_and_only_what_is_drawn_is_read(tmp_path: Path) -> None:
    source = written(tmp_path, [line(f"pictures/{i % 3}.png", f"{i}?", "Yes.") for i in range(9)] + ["{"] * 3)
    for seed in range(4):
        output = read(source, 4, seed=seed)
        assert output.captions.rows == 4
        assert output.images.rows <= 3
    assert read(source, 4) == read(source, 4) != read(source, 4, seed=1)


def test_too_many_bad_lines_fail(tmp_path: Path) -> None:
    with pytest.raises(TooManyQuarantined, match="3 of 4 lines were refused"):
        read(written(tmp_path, [line(), "{", "{", "{"]), config=SampleConfig(max_quarantined=0.5))


def test_the_fingerprint_follows_the_file_and_its_images_and_not_the_folder(tmp_path: Path) -> None:
    source = written(tmp_path, [line()])
    before = open_replay(source)
    assert open_replay(source) == before
    PIL.Image.new("RGB", (64, 64)).save(tmp_path / "pictures" / "0.png")
    assert open_replay(source).fingerprint != before.fingerprint
    written(tmp_path, [line(), line()])
    assert open_replay(source).fingerprint != before.fingerprint


def test_a_file_that_is_missing_or_empty_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StageInputError, match=r"no such file to replay; finetune.replay.source is self, or"):
        open_replay(str(tmp_path / "none.jsonl"))
    with pytest.raises(StageInputError, match="an empty file"):
        read(written(tmp_path, [""]))


@pytest.mark.parametrize(("share", "captions", "count"), [(0, 10, 0), (0.5, 10, 10), (0.2, 8, 2), (0.9, 2, 18)])
def test_the_count_makes_the_share_of_all_examples(share: float, captions: int, count: int) -> None:
    assert replay_count(share, captions) == count
    assert count / (captions + count) == share


def test_examples_are_drawn_by_seed_and_all_are_used_where_they_are_too_few(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = [line(f"pictures/{i % 3}.png", f"{i}?", "Yes.") for i in range(9)]
    replay = material(read(written(tmp_path, lines)))
    drawn = draw_replayed(replay, 4, 0)
    assert drawn == draw_replayed(replay, 4, 0) != draw_replayed(replay, 4, 1)
    assert draw_replayed(replay, 6, 0)[:4] == drawn
    assert len({row.sample_id for (row,) in drawn}) == 4
    with caplog.at_level(logging.WARNING):
        assert len(draw_replayed(replay, 20, 0)) == 9
    assert "20 examples were to be replayed, the material has 9" in caplog.text


def test_a_conversation_is_drawn_whole_and_counts_once(tmp_path: Path) -> None:
    lines = [line(f"pictures/{i % 3}.png", f"{i}?", "Yes.", f"{i}, sure?", "No.", "Why?", "So.") for i in range(6)]
    output = read(written(tmp_path, lines), 4)
    assert (output.captions.rows, output.counters["later_exchanges"]) == (12, 8)
    prompts = {row.sample_id: row.prompt for row in lake.read_rows(Sample, output.samples)}
    drawn = draw_replayed(material(output), 3, 0)
    assert len(drawn) == 3
    for turns in drawn:
        first, *later = (prompts[row.sample_id] for row in turns)
        assert later == [first.replace("?", ", sure?"), "Why?"]


def test_material_without_an_answer_is_an_error() -> None:
    empty = lake.publish(Caption, [Caption("s", "i", "", "greedy", " ", 1, "end", 1, 1)])
    replay = Replay(empty, empty, empty)
    with pytest.raises(StageInputError, match="no answer to replay among 1 rows"):
        draw_replayed(replay, 1, 0)
