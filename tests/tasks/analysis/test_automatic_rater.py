"""The automatic rater: what CHAIR prefers, pair by pair, and how far people agree with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage import lake
from storage.schema import Annotation, Metric, SheetPair
from tasks.analysis.automatic_rater import rate_by_truth
from tasks.analysis.sheets import RatingFile
from tasks.core.analysis.sheets import sheet_id

# Of each pair: the left caption, the right one, and what the automatic rater has to prefer (1: right); a dog and a cat are there.
PAIRS = [
    ("A dog and a bus.", "A dog.", 1),  # fewer hallucinated
    ("A dog and a cat.", "A dog.", -1),  # as few, and names more
    ("A dog.", "One dog.", 0),
    ("A dog.", "A dog, a cat and a bus.", -1),  # hallucinated counts before what is named
]


@pytest.fixture
def sheet(home: Path):
    rows = [
        SheetPair(n, f"s{n}", "i", *(("mine", "base") if n % 2 else ("base", "mine")), left, right)
        for n, (left, right, _) in enumerate(PAIRS, start=1)
    ]
    truth = [Annotation("i", ["cat", "dog"], [], [])]
    return lake.publish(SheetPair, rows), lake.publish(Annotation, truth)


def figures(sheet, *files: RatingFile) -> dict[str, float]:
    metrics = rate_by_truth.fn(*sheet, list(files), subject="mine", bootstrap=50).metrics
    return {row.metric: row.value for row in lake.read_rows(Metric, metrics)}


def rated(key, *ratings: int) -> RatingFile:
    lines = [f"{sheet_id(key.digest)},ann,{pair},{rating}" for pair, rating in enumerate(ratings, start=1)]
    return RatingFile(name="ann", text="\n".join(["sheet,rater,pair,rating", *lines]))


def test_it_prefers_fewer_hallucinated_mentions_then_more_true_objects(sheet) -> None:
    # mine stands left in pairs 1 and 3, right in 2 and 4: it loses 1, 2 and 4.
    assert figures(sheet) == {"win_rate": 0.0, "tie_rate": 0.25, "loss_rate": 0.75, "net_rate": -0.75}


def test_with_ratings_it_shows_its_agreement_with_people(sheet) -> None:
    same = rated(sheet[0], *(preferred for *_, preferred in PAIRS))
    assert figures(sheet, same)["cohen_kappa"] == 1.0
    assert figures(sheet, rated(sheet[0], -1, 1, 1, 1))["cohen_kappa"] < 0
