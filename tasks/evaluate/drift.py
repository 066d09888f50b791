"""Drift: how far a candidate moved from the base in what it was not trained for, and whether that is too far."""

from __future__ import annotations

from dataclasses import dataclass

from storage import lake
from storage.artifacts import Table
from storage.schema import Caption, Comparison, Metric
from tasks.configs.evaluate import DriftConfig
from tasks.core.benchmarks.drift import beyond, drift_figures
from tasks.core.benchmarks.estimates import Intervals, Source, estimate_rows
from tasks.core.metrics import Estimate
from tasks.stage.quarantine import StageInputError
from tasks.stage.results import StageResult
from tasks.stage.stage import stage

DECODING = "greedy"  # what drifts is the model: a search would hide it


@dataclass(frozen=True)
class DriftResult(StageResult):
    """How far a subject moved."""

    metrics: Table[Metric]
    beyond: list[str]  # the bounds that it passes, in words
    figures: dict[str, float]  # the metrics' values by name


@stage()
def drift(
    config: DriftConfig,
    captions: Table[Caption],
    base_captions: Table[Caption],
    *,
    subject: str,
    general: Table[Comparison] | None = None,
    bootstrap: int = 2000,
    confidence: float = 0.95,
) -> DriftResult:
    """Style and forgetting of one subject.

    Args:
        config: the bounds.
        captions: greedy captions of the benchmark by the candidate.
        base_captions: the base's greedy captions under the same samples.
        subject: the candidate's name.
        general: comparisons, candidate minus base, of a general benchmark's accuracy; None: not measured.
        bootstrap: resamples for the intervals.
        confidence: of the intervals.

    Raises:
        StageInputError: captions of other samples, an empty caption of the base, or a bound on what was not measured.
    """
    texts, base_texts = _texts(captions), _texts(base_captions)
    if texts.keys() != base_texts.keys():
        raise StageInputError(
            f"{subject} has captions of {len(texts)} samples, the base of {len(base_texts)}, "
            f"{len(texts.keys() & base_texts.keys())} in common: drift needs the same ones"
        )
    order = sorted(texts)
    draws = Intervals(bootstrap, confidence).draws(len(order))
    change = _general(general)
    lost = None if change is None else (change.diff, change.ci_low, change.ci_high)
    if lost is None and config.max_general_drop is not None:
        raise StageInputError(
            "drift.max_general_drop is set, but no general benchmark was measured; set drift.questions above 0"
        )
    try:
        figures = drift_figures(
            [texts[i] for i in order], [base_texts[i] for i in order], draws=draws, confidence=confidence
        )
    except ValueError as error:
        raise StageInputError(f"{subject}: {error}; see the captions table") from error
    passed = beyond(
        figures,
        lost,
        max_length_change=config.max_length_change,
        max_ngram_drift=config.max_ngram_drift,
        max_general_drop=config.max_general_drop,
    )
    if change is not None:
        spread = float("nan") if change.stderr is None else change.stderr
        interval = (spread, change.ci_low, change.ci_high, change.n)
        figures["general_change"] = Estimate(change.diff, *interval)
    rows = estimate_rows(figures, Source(subject, DECODING, "drift"))
    return DriftResult(
        metrics=lake.publish(Metric, rows),
        beyond=passed,
        figures={row.metric: row.value for row in rows},
    )


def _texts(captions: Table[Caption]) -> dict[str, str]:
    """sample id -> caption."""
    rows = lake.read_rows(Caption, captions)
    texts = {row.sample_id: row.text for row in rows}
    if len(texts) != len(rows):
        raise StageInputError(f"{captions}: {len(rows)} captions of {len(texts)} samples; drift needs one of each")
    return texts


def _general(comparisons: Table[Comparison] | None) -> Comparison | None:
    """The paired difference in accuracy, if it was measured."""
    if comparisons is None:
        return None
    matches = [row for row in lake.read_rows(Comparison, comparisons) if row.metric == "accuracy"]
    if len(matches) != 1:
        raise StageInputError(
            f"{comparisons}: {len(matches)} rows of metric accuracy, drift needs the one of candidate - base"
        )
    return matches[0]
