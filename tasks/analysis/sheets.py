"""The human-evaluation pack: blinded A/B sheets of two subjects' captions out, raters' files in, a win rate.

`sheets` draws the pairs; its table is the key and stays in the store. `tasks.report.sheets` writes from it what a rater gets,
which does not show who wrote what. `score_sheets` reads what comes back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from storage import lake
from storage.artifacts import Table
from storage.schema import Caption, Finding, Image, Quarantined, SheetPair
from tasks.core.analysis.ratings import Figure, rating_figures
from tasks.core.analysis.sheets import Problem, draw_pairs, read_ratings, settle, sheet_id
from tasks.stage.quarantine import StageInputError
from tasks.stage.results import StageResult
from tasks.stage.stage import stage


class RatingFile(BaseModel):
    """What a rater sent back; its text is part of what a score is of, its path is not."""

    model_config = ConfigDict(frozen=True)
    name: str
    text: str


class Verdicts(NamedTuple):
    """Raters' verdicts on a subject."""

    verdicts: dict[tuple[str, int], int]  # (rater, pair) -> +1: the subject's caption is better, 0, -1
    on_right: dict[int, bool]  # pair -> whether the subject stands right; all pairs of the sheet
    other: str  # who stands against it
    problems: list[Problem]  # rows that don't count


@dataclass(frozen=True)
class SheetsResult(StageResult):
    """The key of a sheet. Counters: samples, identical pairs."""

    sheet_pairs: Table[SheetPair]


@dataclass(frozen=True)
class SheetScoresResult(StageResult):
    """The raters' verdict on a subject; in quarantine the rows of their files that don't count."""

    findings: Table[Finding]
    quarantine: Table[Quarantined]
    win_rate: float  # of all raters together
    raters: int
    ratings: int


@stage()
def sheets(
    captions_a: Table[Caption],
    captions_b: Table[Caption],
    images: Table[Image],
    *,
    name_a: str,
    name_b: str,
    pairs: int = 300,
    seed: int,
) -> SheetsResult:
    """Draw pairs of captions of the same samples.

    Order and sides are random by seed; A stands left in half of the pairs. Captions that are alike stay in: they are ties.

    Raises:
        StageInputError: names that don't distinguish the two, samples that only one has, images that are missing, or fewer
            samples than pairs.
    """
    if name_a == name_b:
        raise StageInputError(f"both subjects are called {name_a}; give name_a and name_b")
    a, b = _by_sample(captions_a), _by_sample(captions_b)
    if a.keys() != b.keys():
        raise StageInputError(
            f"{name_a} has captions of {len(a)} samples, {name_b} of {len(b)}, {len(a.keys() & b.keys())} in common: "
            "a sheet needs the same ones"
        )
    lacking = {row.image_id for row in a.values()} - set(
        lake.read(images, columns=["image_id"])["image_id"].to_pylist()
    )
    if lacking:
        raise StageInputError(f"{images} lacks {len(lacking)} images of the captions, as {min(lacking)}")
    try:
        drawn = draw_pairs(a, pairs, seed)
    except ValueError as error:
        raise StageInputError(f"{name_a} and {name_b}: {error}; lower the number of pairs") from error
    rows = []
    for number, (sample_id, a_left) in enumerate(drawn, start=1):
        sides = [(name_a, a[sample_id].text), (name_b, b[sample_id].text)]
        (left, left_text), (right, right_text) = sides if a_left else reversed(sides)
        rows.append(SheetPair(number, sample_id, a[sample_id].image_id, left, right, left_text, right_text))
    return SheetsResult(
        lake.publish(SheetPair, rows),
        counters={"samples": len(a), "identical": sum(row.left_text == row.right_text for row in rows)},
    )


def open_ratings(paths: Sequence[Path]) -> list[RatingFile]:
    """Read what raters sent back; files of one name get a number.

    Raises:
        StageInputError: no file, one that is not there, or one that is not text.
    """
    if not paths:
        raise StageInputError("no files of ratings; pass the CSV files that the raters sent back")
    files: list[RatingFile] = []
    for path in paths:
        taken = {file.name for file in files}
        name = next(name for name in _names(path.stem) if name not in taken)
        try:
            files.append(RatingFile(name=name, text=path.read_text(encoding="utf-8-sig")))
        except OSError as error:
            raise StageInputError(f"{path}: can't be read ({error.strerror})") from error
        except UnicodeDecodeError as error:
            raise StageInputError(f"{path}: not UTF-8 text; save the table as CSV (UTF-8)") from error
    return files


@stage()
def score_sheets(
    key: Table[SheetPair],
    ratings: Sequence[RatingFile],
    *,
    subject: str,
    experiment: str = "human-eval",
    seed: int,
    bootstrap: int = 2000,
    confidence: float = 0.95,
) -> SheetScoresResult:
    """The raters' verdict on `subject`.

    Arms are `SUBJECT against OTHER` (all raters) and `SUBJECT against OTHER, RATER`; metrics are those of
    `tasks.core.analysis.ratings.rating_figures`.

    Raises:
        StageInputError: a subject that is not in the sheet, a file without the columns, or no rating of this sheet.
    """
    given = read_verdicts(key, ratings, subject)
    figures = rating_figures(given.verdicts, given.on_right, resamples=bootstrap, confidence=confidence)
    arm = f"{subject} against {given.other}"
    return SheetScoresResult(
        findings=lake.publish(Finding, [_finding(experiment, arm, seed, figure) for figure in figures]),
        quarantine=lake.publish(Quarantined, [Quarantined("score_sheets", *problem) for problem in given.problems]),
        win_rate=next(figure.value for figure in figures if not figure.rater and figure.metric == "win_rate"),
        raters=len({rater for rater, _ in given.verdicts}),
        ratings=len(given.verdicts),
        counters={"refused": len(given.problems)},
    )


def read_verdicts(key: Table[SheetPair], ratings: Sequence[RatingFile], subject: str) -> Verdicts:
    """What files of ratings say of `subject`; errors as those of `score_sheets`."""
    rows = {row.pair: row for row in lake.read_rows(SheetPair, key)}
    other, sheet = _other(rows, subject), sheet_id(key.digest)
    rated, problems = [], []
    for file in ratings:
        try:
            of_file, refused = read_ratings(file.name, file.text, sheet=sheet, pairs=rows.keys())
        except ValueError as error:
            raise StageInputError(str(error)) from error
        rated += of_file
        problems += refused
    settled, repeated = settle(rated)
    problems += repeated
    if not settled:
        why = f", the first refused row: {problems[0].item_id}, {problems[0].detail}" if problems else ""
        raise StageInputError(f"{len(ratings)} files hold no rating of sheet {sheet}{why}")
    on_right = {pair: row.right == subject for pair, row in rows.items()}
    verdicts = {(rater, pair): rating if on_right[pair] else -rating for (rater, pair), rating in settled.items()}
    return Verdicts(verdicts, on_right, other, problems)


def _names(stem: str) -> Iterator[str]:
    """A name, and others for files that have the same."""
    yield stem
    yield from (f"{stem}-{number}" for number in count(2))


def _by_sample(captions: Table[Caption]) -> dict[str, Caption]:
    """sample id -> caption."""
    rows = lake.read_rows(Caption, captions)
    by_sample = {row.sample_id: row for row in rows}
    if len(by_sample) != len(rows):
        raise StageInputError(
            f"{captions}: {len(rows)} captions of {len(by_sample)} samples; a sheet needs one of each"
        )
    return by_sample


def _other(rows: dict[int, SheetPair], subject: str) -> str:
    """Who stands against the subject."""
    names = {name for row in rows.values() for name in (row.left, row.right)}
    if subject not in names:
        raise StageInputError(f"{subject} is not in this sheet, which compares {' and '.join(sorted(names))}")
    return next(name for name in sorted(names) if name != subject)


def _finding(experiment: str, arm: str, seed: int, figure: Figure) -> Finding:
    """A figure as a row; no interval is None there."""
    arm += f", {figure.rater}" if figure.rater else ""
    low, high = (None, None) if math.isnan(figure.low) else (figure.low, figure.high)
    return Finding(experiment, arm, None, seed, figure.metric, figure.value, low, high, figure.n)
