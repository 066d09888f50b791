"""Questions about drawn images, and answers to them: what task `answers` samples in place of prompts.

`ask` is the one stage that reads boxes of training images: questions are made from them. What is learned never
reads the answers, unless the profile's verification compares with them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol

from storage import coco, lake
from storage.artifacts import Table
from storage.schema import Answer, Box, Caption, Image, Quarantined, Sample
from tasks.configs.staged import QuestionConfig
from tasks.core.data.questions import AnnotatedImage, make_questions
from tasks.core.seeds import digest_of, seed_for
from tasks.data.question_files import PlannedQuestion, questions_of_file
from tasks.stage.quarantine import StageInputError, check_nothing_lost
from tasks.stage.results import StageResult
from tasks.stage.stage import stage


class Source(Protocol):
    """An open source of images, as `tasks.data.sample.open_source` gives one."""

    @property
    def root(self) -> str:
        """Its folder."""

    @property
    def name(self) -> str:
        """What sample ids are derived from."""

    @property
    def split(self) -> str | None:
        """Which annotations are its images'; None: it has none."""


class _Drawn(NamedTuple):
    """What a question needs of an image."""

    image_id: str
    width: int
    height: int
    split: str


@dataclass(frozen=True)
class QuestionsResult(StageResult):
    """Questions as samples, their true answers, and images and lines without one."""

    samples: Table[Sample]
    answers: Table[Answer]
    quarantine: Table[Quarantined]


@stage(reads_annotations=True)
def ask(
    config: QuestionConfig,
    source: Source,
    images: Table[Image],
    *,
    benchmark: bool,
    instruction: str = "",
    file_digest: str = "",
    seed: int,
) -> QuestionsResult:
    """Questions about images; a sample's prompt is the question, then `instruction`.

    Turns of a conversation are asked one by one, and learned together: each follows the sample of the turn before. An
    image's questions depend on seed, source and image only, so the same ones come with and without an instruction;
    `plainly` brings answers to the former back to the latter. `file_digest`: `questions_digest`, so that the file counts as
    an input. An image without a question is in quarantine; so is a line of the file that holds none.
    """
    table = lake.read(images, columns=["image_id", "width", "height", "split"]).to_pylist()
    drawn = [_Drawn(**row) for row in table]
    name = config.benchmark if benchmark else config.train
    refused: list[Quarantined] = []
    if name:
        questions = questions_of_file(
            Path(name).expanduser(), file_digest, {image.image_id for image in drawn}, refused
        )
        needs_answers = benchmark
    else:
        questions, needs_answers = _from_boxes(config, source, drawn, seed), True
    samples, answers = [], []
    for image in drawn:
        for question in questions.get(image.image_id, ()):
            prompt = _prompt(question.text, instruction)
            sample_id = digest_of(source.name, image.image_id, prompt)
            after = question.after and digest_of(source.name, image.image_id, _prompt(question.after, instruction))
            if question.answer is None and needs_answers:
                raise StageInputError(f"{name}: the question {question.text!r} about {image.image_id} has no answer")
            samples.append(Sample(sample_id, image.image_id, prompt, image.split, after))
            if question.answer is not None:
                answers.append(Answer(sample_id, question.answer, question.kind))
        if not questions.get(image.image_id):
            refused.append(Quarantined("ask", image.image_id, "no_question", "neither file nor boxes give one"))
    if not samples:
        raise StageInputError(
            f"no question about any of {len(drawn)} images of {source.name}; see "
            + (f"the image_id's of {name}" if name else "its annotations: questions are made from boxes")
        )
    return QuestionsResult(
        samples=lake.publish(Sample, samples),
        answers=lake.publish(Answer, answers),
        quarantine=lake.publish(Quarantined, refused),
        counters={
            "questions": len(samples),
            "images_without": sum(not questions.get(image.image_id) for image in drawn),
        },
    )


def _prompt(question: str, instruction: str) -> str:
    return f"{question} {instruction}" if instruction else question


@dataclass(frozen=True)
class PlainAnswersResult(StageResult):
    """Answers to questions without instruction."""

    plain: Table[Caption]


@stage()
def plainly(
    captions: list[Table[Caption]], instructed: Table[Sample], plain: Table[Sample], *, instruction: str
) -> PlainAnswersResult:
    """Answers to instructed questions as answers to the same ones without instruction.

    The policy learns to answer in stages without the instruction (LLaVA-CoT needs no extra prompt), and one set of questions
    is measured, with and without the instruction.
    """
    plain_ids = {(sample.image_id, sample.prompt): sample.sample_id for sample in lake.read_rows(Sample, plain)}
    ending = f" {instruction}" if instruction else ""
    match = {
        sample.sample_id: plain_ids.get((sample.image_id, sample.prompt.removesuffix(ending)))
        for sample in lake.read_rows(Sample, instructed)
    }
    rows = lake.read_rows(Caption, captions)
    if not rows:
        raise StageInputError(
            "no staged answer was accepted, so there is nothing to learn; the verdicts table says why: visloop query "
            '"SELECT reason, count(*) FROM verdicts GROUP BY reason". A policy that does not write stages needs a teacher '
            "(staged.teacher.kind=endpoint)"
        )
    done = [replace(row, sample_id=sample_id) for row in rows if (sample_id := match.get(row.sample_id))]
    check_nothing_lost("plainly", len(rows), len(done), 0, 0.0, unit="answers")
    return PlainAnswersResult(lake.publish(Caption, done))


def _from_boxes(
    config: QuestionConfig, source: Source, drawn: Sequence[_Drawn], seed: int
) -> dict[str, list[PlannedQuestion]]:
    """Questions that the annotated boxes answer, by image. Questions about absent objects name objects of the split."""
    if source.split is None:
        raise StageInputError(
            f"{source.name} has no annotations to make questions from; give a file: questions.train=FILE (JSON Lines of "
            "image_id, question, answer)"
        )
    root = Path(source.root)
    known = coco.read_annotations(
        root, source.split, [image.image_id for image in coco.list_images(root, source.split)]
    )
    boxes = {row.image_id: [Box(**box) for box in row.boxes] for row in known}
    vocabulary = sorted({name for row in known for name in row.objects})
    likely = _likely(root)
    questions = {}
    for image in drawn:
        made = make_questions(
            random.Random(seed_for("questions", seed, image.image_id)),
            AnnotatedImage(boxes[image.image_id], image.width, image.height),
            vocabulary=vocabulary,
            likely=likely,
            kinds=config.kinds,
            count=config.per_image,
        )
        before = [None, *(entry.prompt for entry in made)] if config.conversation else [None] * len(made)
        questions[image.image_id] = [
            PlannedQuestion(entry.prompt, entry.answer, entry.kind, after)
            for entry, after in zip(made, before, strict=False)
        ]
    return questions


def _likely(root: Path) -> Callable[[Sequence[str]], Iterable[str]] | None:
    """What the demo world's scenes lead one to expect; None for any other data set."""
    if not (root / coco.MARKER).is_file():
        return None
    from tasks.core.demo.questions import likely

    return likely
