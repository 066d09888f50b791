"""Excerpts: some rows of a table of figures, so that two benchmarks' figures of one name can stand beside each other."""

from __future__ import annotations

from collections.abc import Sequence

from storage import lake
from storage.artifacts import ArtifactRef, StageOutput
from storage.schema import Comparison, Finding, Metric
from tasks.stage.runtime import RuntimeConfig
from tasks.stage.stage import StageInputError, stage


@stage()
def excerpt(figures: ArtifactRef, names: Sequence[str], *, runtime: RuntimeConfig, label: str = "") -> StageOutput:
    """The rows of these metrics, of a table of metrics or of comparisons. Output: excerpt, of the same kind.

    Raises:
        StageInputError: another kind of table, or none of these metrics in it.
    """
    kinds: dict[str, type[Metric] | type[Comparison]] = {one.table: one for one in (Metric, Comparison)}
    if figures.kind not in kinds:
        raise StageInputError(f"{figures}: want a table of {' or '.join(kinds)}")
    of = kinds[figures.kind]
    rows = [row for row in lake.read_rows(of, figures) if row.metric in names]
    if not rows:
        raise StageInputError(f"{figures} has none of {', '.join(names)}")
    return StageOutput(refs={"excerpt": lake.publish(of, rows)})


@stage()
def together(differences: list[ArtifactRef], *, runtime: RuntimeConfig, label: str = "") -> StageOutput:
    """Several tables of comparisons as one: what is measured against another arm is one table. Output: comparisons."""
    return StageOutput(refs={"comparisons": lake.publish(Comparison, lake.read_rows(Comparison, differences))})


@stage()
def ratings(findings: ArtifactRef, *, subject: str, runtime: RuntimeConfig, label: str = "") -> StageOutput:
    """What raters said, as a table of metrics: of all together, and METRIC@I of the I-th rater by name. Output: metrics."""
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
    return StageOutput(refs={"metrics": lake.publish(Metric, metrics)})
