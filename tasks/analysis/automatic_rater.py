"""An automatic rater of a sheet, which knows what is truly in each image: what CHAIR would answer in place of a person.

It is no evidence of what people prefer. It shows that a sheet can tell its two authors apart, and how far people agree with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from storage import lake
from storage.artifacts import Table
from storage.schema import Annotation, Metric, SheetPair
from tasks.analysis.sheets import RatingFile, read_verdicts
from tasks.core.analysis.ratings import rating_figures
from tasks.core.benchmarks.chair import chair_item, true_objects
from tasks.core.benchmarks.estimates import Source, estimate_rows
from tasks.core.metrics import Estimate
from tasks.stage.results import StageResult
from tasks.stage.stage import stage

RATER, PEOPLE = "automatic", "people"
SHOWN = ("win_rate", "tie_rate", "loss_rate", "net_rate")


@dataclass(frozen=True)
class AutomaticRaterResult(StageResult):
    """Figures of benchmark `automatic rater`: its shares, and with ratings `cohen_kappa`, its agreement with people."""

    metrics: Table[Metric]


@stage(reads_annotations=True)
def rate_by_truth(
    key: Table[SheetPair],
    annotations: Table[Annotation],
    ratings: Sequence[RatingFile],
    *,
    subject: str,
    bootstrap: int = 2000,
    confidence: float = 0.95,
) -> AutomaticRaterResult:
    """Rate every pair of a sheet by CHAIR: better is the caption with fewer hallucinated mentions, then with more true objects.

    Args:
        key: of the sheet.
        annotations: of its images.
        ratings: what people sent back; may be empty.
        subject: whose win rate it is.
        bootstrap: resamples of the pairs.
        confidence: of the intervals.

    Raises:
        StageInputError: a file that is not of this sheet.
    """
    truth = {row.image_id: true_objects(row.objects, row.captions) for row in lake.read_rows(Annotation, annotations)}
    pairs = {row.pair: row for row in lake.read_rows(SheetPair, key)}
    on_right = {pair: row.right == subject for pair, row in pairs.items()}
    verdicts = {(RATER, pair): _verdict(row, truth[row.image_id], subject) for pair, row in pairs.items()}
    figures = [
        figure
        for figure in rating_figures(verdicts, on_right, resamples=bootstrap, confidence=confidence)
        if not figure.rater and figure.metric in SHOWN
    ]
    if ratings:
        people: dict[int, int] = {}
        for (_, pair), verdict in read_verdicts(key, ratings, subject).verdicts.items():
            people[pair] = people.get(pair, 0) + verdict
        both = verdicts | {(PEOPLE, pair): (total > 0) - (total < 0) for pair, total in people.items()}
        agreed = rating_figures(both, on_right, resamples=bootstrap, confidence=confidence)
        figures += [figure for figure in agreed if figure.metric == "cohen_kappa"]
    estimates = {
        figure.metric: Estimate(figure.value, float("nan"), figure.low, figure.high, figure.n) for figure in figures
    }
    rows = estimate_rows(estimates, Source(subject, "sheet", "automatic rater"))
    return AutomaticRaterResult(lake.publish(Metric, rows))


def _verdict(row: SheetPair, truth: set[str], subject: str) -> int:
    """+1: the subject's caption is better; 0: neither."""
    (left, _), (right, _) = chair_item(row.left_text, truth), chair_item(row.right_text, truth)
    left_rank, right_rank = (-left.hallucinated, left.recalled), (-right.hallucinated, right.recalled)
    better_right = (right_rank > left_rank) - (right_rank < left_rank)
    return better_right if row.right == subject else -better_right
