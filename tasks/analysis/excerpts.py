"""Excerpts: some rows of a table of figures, so that two benchmarks' figures of one name can stand beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from storage import lake
from storage.artifacts import Table
from storage.schema import Comparison, Finding, Metric
from tasks.stage.quarantine import StageInputError
from tasks.stage.results import StageResult
from tasks.stage.stage import stage


@dataclass(frozen=True)
class ExcerptResult(StageResult):
    """Some rows of a table, as a table of the same kind."""

    excerpt: Table[Any]


@dataclass(frozen=True)
class TogetherResult(StageResult):
    """The rows of several tables."""

    comparisons: Table[Comparison]


@dataclass(frozen=True)
class RatingsResult(StageResult):
    """Raters' verdicts as figures of benchmark `ratings`."""

    metrics: Table[Metric]


@stage()
def excerpt(figures: Table[Metric] | Table[Comparison], names: Sequence[str]) -> ExcerptResult:
    """The rows of these metrics, of a table of metrics or of comparisons.

    Raises:
        StageInputError: another kind of table, or none of these metrics in it.
    """
    kinds: dict[str, Any] = {row_type.table: row_type for row_type in (Metric, Comparison)}
    if figures.kind not in kinds:
        raise StageInputError(f"{figures}: want a table of {' or '.join(kinds)}")
    row_type = kinds[figures.kind]
    rows = [row for row in lake.read_rows(row_type, figures) if row.metric in names]
    if not rows:
        raise StageInputError(f"{figures} has none of {', '.join(names)}")
    return ExcerptResult(lake.publish(row_type, rows))


@stage()
def together(differences: Sequence[Table[Comparison]]) -> TogetherResult:
    """Several tables of comparisons as one: an arm has one table for each arm that it is compared with."""
    return TogetherResult(lake.publish(Comparison, lake.read_rows(Comparison, differences)))


@stage()
def ratings(findings: Table[Finding], *, subject: str) -> RatingsResult:
    """The figures of `score_sheets` as metrics: of all raters together, and METRIC@I of the I-th rater by name."""
    rows = lake.read_rows(Finding, findings)
    arms = list(dict.fromkeys(row.arm for row in rows))
    whole = min(arms, key=len)  # the others are it with a rater's name behind
    order = {arm: index for index, arm in enumerate(sorted(set(arms) - {whole}), start=1)}
    nan = float("nan")
    metrics = [
        Metric(
            subject=subject,
            decoding="sheet",
            benchmark="ratings",
            metric=row.metric if row.arm == whole else f"{row.metric}@{order[row.arm]}",
            value=row.value,
            stderr=nan,
            ci_low=nan if row.ci_low is None else row.ci_low,
            ci_high=nan if row.ci_high is None else row.ci_high,
            n=row.n,
        )
        for row in rows
    ]
    return RatingsResult(lake.publish(Metric, metrics))
