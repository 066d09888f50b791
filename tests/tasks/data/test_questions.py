"""Questions as samples: the same ones with and without an instruction, from boxes or from a file, and back again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from storage import coco, lake
from storage.schema import Answer, Caption, Quarantined, Sample
from tasks.configs.data import FolderSource
from tasks.configs.staged import QuestionConfig
from tasks.data.question_files import questions_digest
from tasks.data.questions import ask, plainly
from tasks.data.sample import open_source
from tasks.stage.quarantine import StageInputError, TooManyQuarantined
from tasks.train.conversations import conversations
from tests.support.small_world import drawn, source

INSTRUCTION = "Answer in four stages."


def made_questions(config: QuestionConfig | None = None, *, benchmark: bool = False, **more):
    config = config or QuestionConfig()
    digest = more.pop("digest", None) or questions_digest(config, benchmark=benchmark)
    given = {"seed": 0, "source": source("test" if benchmark else "train")} | more
    with lake.annotations_allowed():
        return ask.fn(
            config, given.pop("source"), drawn(benchmark).images, benchmark=benchmark, file_digest=digest, **given,
        )  # fmt: skip


def samples(output) -> list[Sample]:
    return lake.read_rows(Sample, output.samples)


def answers(output) -> dict[str, Answer]:
    with lake.annotations_allowed():
        return {row.sample_id: row for row in lake.read_rows(Answer, output.answers)}


def test_every_image_has_a_question_and_every_question_has_its_answer() -> None:
    output = made_questions()
    images = {row["image_id"]: row["split"] for row in lake.read(drawn().images).to_pylist()}
    rows, known = samples(output), answers(output)
    assert len(rows) == len(images) == output.counters["questions"]
    assert {row.image_id: row.split for row in rows} == images
    assert known.keys() == {row.sample_id for row in rows}
    assert {answer.kind for answer in known.values()} == {"what", "how_many", "where"}


def test_questions_are_about_the_boxes() -> None:
    output = made_questions(QuestionConfig(kinds=["how_many"]))
    of = {row.image_id: answers(output)[row.sample_id].answer for row in samples(output)}
    known = coco.read_annotations(Path(source().root), "train", list(of))
    assert of == {row.image_id: str(len(row.boxes)) for row in known}


def test_the_seed_decides_and_the_other_images_do_not() -> None:
    def prompts(output) -> dict[str, str]:
        return {row.image_id: row.prompt for row in samples(output)}

    assert prompts(made_questions()) == prompts(made_questions()) != prompts(made_questions(seed=1))
    half = lake.read(drawn().images).slice(0, 8)
    with lake.annotations_allowed():
        from storage.schema import Image

        part = ask.fn(
            QuestionConfig(), source(), lake.publish(Image, half), benchmark=False, seed=0
        )  # fmt: skip
    whole = prompts(made_questions())
    assert prompts(part) == {image_id: whole[image_id] for image_id in prompts(part)}


def test_several_questions_an_image_are_different_ones() -> None:
    rows = samples(made_questions(QuestionConfig(per_image=3)))
    assert len({(row.image_id, row.prompt) for row in rows}) == len(rows) > 2 * 16


def test_an_instruction_changes_the_prompt_and_nothing_else() -> None:
    plain, instructed = made_questions(), made_questions(instruction=INSTRUCTION)
    without = {(row.image_id, row.prompt) for row in samples(plain)}
    assert {(row.image_id, row.prompt.removesuffix(f" {INSTRUCTION}")) for row in samples(instructed)} == without
    assert all(row.prompt.endswith(f"? {INSTRUCTION}") for row in samples(instructed))
    assert not {row.sample_id for row in samples(plain)} & {row.sample_id for row in samples(instructed)}


def captions(rows: list[Sample]) -> list[Caption]:
    return [
        Caption(row.sample_id, row.image_id, "p", "swires", f"about {row.prompt}", 4, "cutoff", 9, 99) for row in rows
    ]


def test_answers_come_back_to_the_bare_questions_whatever_attempt_they_are_of() -> None:
    plain, instructed = made_questions(), made_questions(instruction=INSTRUCTION)
    rows = captions(samples(instructed))
    parts = [lake.publish(Caption, rows[:5]), lake.publish(Caption, rows[5:])]
    output = plainly.fn(parts, instructed.samples, plain.samples, instruction=INSTRUCTION)
    back = {row.sample_id: row for row in lake.read_rows(Caption, output.plain)}
    assert back.keys() == {row.sample_id for row in samples(plain)}
    for sample in samples(plain):
        assert (back[sample.sample_id].image_id, back[sample.sample_id].text) == (
            sample.image_id,
            f"about {sample.prompt} {INSTRUCTION}",
        )


def test_without_an_instruction_answers_stay_where_they_are() -> None:
    plain = made_questions()
    ref = lake.publish(Caption, captions(samples(plain)))
    output = plainly.fn([ref], plain.samples, plain.samples, instruction="")
    assert output.plain.digest == ref.digest


def test_answers_to_other_questions_are_an_error() -> None:
    plain, instructed = made_questions(seed=1), made_questions(instruction=INSTRUCTION)
    ref = lake.publish(Caption, captions(samples(instructed)))
    with pytest.raises(StageInputError, match="16 answers went in"):
        plainly.fn([ref], instructed.samples, plain.samples, instruction=INSTRUCTION)


def test_nothing_accepted_is_an_error_that_names_the_table() -> None:
    plain = made_questions()
    with pytest.raises(StageInputError, match=r"no staged answer was accepted.*verdicts"):
        plainly.fn([lake.publish(Caption, [])], plain.samples, plain.samples, instruction="")


# From a file


def write(path: Path, items: list[object]) -> QuestionConfig:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in items) + "\n")
    return QuestionConfig(train=str(path))


def image_ids() -> list[str]:
    return [row["image_id"] for row in lake.read(drawn().images).to_pylist()]


def lines() -> list[object]:
    """One question about each drawn image, and one about an image that wasn't drawn."""
    made = [
        {"image_id": int(image_id), "question": f"What is {image_id}?", "answer": n}
        for n, image_id in enumerate(image_ids())
    ]
    return [*made, {"image_id": "999999", "question": "Who?", "answer": "nobody"}]


def test_a_file_gives_its_questions_about_the_drawn_images(tmp_path: Path) -> None:
    output = made_questions(write(tmp_path / "q.jsonl", lines()))
    rows, known = samples(output), answers(output)
    assert {row.prompt for row in rows} == {f"What is {image_id}?" for image_id in image_ids()}
    assert {answer.kind for answer in known.values()} == {"file"}
    assert {answer.answer for answer in known.values()} == {str(n) for n in range(16)}
    assert lake.read_rows(Quarantined, output.quarantine) == []


def test_bad_and_repeated_lines_and_images_without_a_question_are_in_quarantine(tmp_path: Path) -> None:
    made = lines()
    content = [*made[1:], made[1], *({"image_id": f"x{n}", "question": "?", "answer": "!"} for n in range(40)), "{oops"]
    output = made_questions(write(tmp_path / "q.jsonl", content))
    refused = {(row.reason, row.item_id) for row in lake.read_rows(Quarantined, output.quarantine)}
    assert refused == {
        ("no_question", image_ids()[0]), ("repeated", "q.jsonl:17"), ("bad_line", f"q.jsonl:{len(content)}"),
    }  # fmt: skip
    assert output.counters["images_without"] == 1


def test_a_file_that_is_mostly_no_file_of_questions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TooManyQuarantined, match="3 of 20 lines"):
        made_questions(
            write(tmp_path / "q.jsonl", [*lines(), "[1]", '{"image_id": 1}', '{"image_id": 1, "question": ""}'])
        )


def test_questions_to_learn_from_may_lack_answers_and_the_benchmarks_may_not(tmp_path: Path) -> None:
    made = [{"image_id": image_id, "question": "What?"} for image_id in image_ids()]
    output = made_questions(write(tmp_path / "q.jsonl", made))
    assert (len(samples(output)), answers(output)) == (16, {})
    benchmark = [row["image_id"] for row in lake.read(drawn(True).images).to_pylist()]
    path = tmp_path / "b.jsonl"
    write(path, [{"image_id": image_id, "question": "What?"} for image_id in benchmark])
    with pytest.raises(StageInputError, match="has no answer"):
        made_questions(QuestionConfig(benchmark=str(path)), benchmark=True)


def test_a_file_that_changed_under_the_run_is_noticed(tmp_path: Path) -> None:
    config = write(tmp_path / "q.jsonl", lines())
    digest = questions_digest(config, benchmark=False)
    write(tmp_path / "q.jsonl", lines()[:3])
    assert questions_digest(config, benchmark=False) != digest
    with pytest.raises(StageInputError, match="not the file"):
        made_questions(config, digest=digest)


def test_a_missing_file_and_a_file_about_other_images_are_explained(tmp_path: Path) -> None:
    with pytest.raises(StageInputError, match=r"questions.train: .*none.jsonl can't be read"):
        questions_digest(QuestionConfig(train=str(tmp_path / "none.jsonl")), benchmark=False)
    with pytest.raises(StageInputError, match="no question about any of 16 images"):
        made_questions(write(tmp_path / "q.jsonl", lines()[-1:]))


def test_a_folder_has_no_boxes_to_make_questions_from(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    folder = open_source(FolderSource(root=str(tmp_path)))
    with pytest.raises(StageInputError, match="no annotations to make questions from; give a file"):
        made_questions(source=folder)


# Conversations


def talk(image_id: str, *texts: str) -> dict[str, object]:
    messages = [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]
    return {"id": 7, "image": image_id, "conversations": messages}


def test_turns_of_a_conversation_are_questions_that_follow_each_other(tmp_path: Path) -> None:
    first, second, *_ = image_ids()
    staged = "<SUMMARY>I look.</SUMMARY> <CONCLUSION> Red </CONCLUSION>"
    made = [
        talk(first, "<image>\nWhat is it?", "A cup.", "Its colour?", staged, "Why?", "Paint."),
        talk(first, "Its colour?", "Blue", "And its place?", "left"),
        talk(second, "What is it?\n<image>", "A dog"),
    ]
    for instruction in ("", INSTRUCTION):
        output = made_questions(write(tmp_path / "q.jsonl", made), instruction=instruction)
        ending = f" {instruction}" if instruction else ""
        rows = {(row.image_id, row.prompt.removesuffix(ending)): row for row in samples(output)}
        before = {row.sample_id: text for (_, text), row in rows.items()}
        assert {key: row.follows and before[row.follows] for key, row in rows.items()} == {
            (first, "What is it?"): None, (first, "Its colour?"): "What is it?", (first, "Why?"): "Its colour?",
            (first, "And its place?"): None, (second, "What is it?"): None,
        }  # fmt: skip
        assert [answers(output)[rows[first, text].sample_id].answer for text in ("What is it?", "Its colour?")] == [
            "A cup.", "Red",
        ]  # fmt: skip
        refused = [(row.reason, row.item_id) for row in lake.read_rows(Quarantined, output.quarantine)]
        assert ("repeated", "q.jsonl:2") in refused


@pytest.mark.parametrize(
    ("bad", "detail"),
    [
        (talk("x", "What?"), "conversations must be messages of human and gpt in turn"),
        (talk("x", "What?", "A", "<image>", "B"), "turn 2: no question"),
        ({"conversations": []}, "wanted image (or image_id) and conversations"),
        (talk("x", "<image><image>Compare.", "A"), "2 places for images"),
    ],
)
def test_what_is_no_conversation_is_in_quarantine(tmp_path: Path, bad: dict[str, object], detail: str) -> None:
    output = made_questions(write(tmp_path / "q.jsonl", [*lines(), *lines(), bad]))
    (row,) = [row for row in lake.read_rows(Quarantined, output.quarantine) if row.reason == "bad_line"]
    assert detail in row.detail


def test_made_questions_about_an_image_may_be_a_conversation() -> None:
    rows = samples(made_questions(QuestionConfig(per_image=3, conversation=True)))
    prompts = {row.sample_id: row for row in rows}
    later = [row for row in rows if row.follows]
    assert len(later) == len(rows) - len({row.image_id for row in rows})
    assert all(prompts[row.follows].image_id == row.image_id for row in later)
    assert not any(row.follows for row in samples(made_questions(QuestionConfig(per_image=3))))


def test_answers_of_a_conversation_are_learned_in_its_order() -> None:
    config = QuestionConfig(per_image=3, conversation=True)
    plain, instructed = made_questions(config), made_questions(config, instruction=INSTRUCTION)
    back = plainly.fn(
        [lake.publish(Caption, captions(samples(instructed)))], instructed.samples, plain.samples,
        instruction=INSTRUCTION,
    )  # fmt: skip
    known = {row.sample_id: row for row in samples(plain)}
    groups = conversations(list(known.values()), lake.read_rows(Caption, back.plain))
    assert len(groups) == 16 and sum(map(len, groups)) == len(known)
    for group in groups:
        assert [known[row.sample_id].follows for row in group] == [None, *(row.sample_id for row in group[:-1])]
