"""Staged answers in another form, for experiments on what tags and their order are worth."""

from __future__ import annotations

from dataclasses import dataclass, replace

from storage import lake
from storage.artifacts import Table
from storage.schema import Caption, Quarantined
from tasks.core.analysis.retag import Form, retag
from tasks.stage.quarantine import StageInputError
from tasks.stage.results import StageResult
from tasks.stage.stage import stage


@dataclass(frozen=True)
class RewriteResult(StageResult):
    """Answers in another form; in quarantine as `not_staged` those without four whole stages."""

    captions: Table[Caption]
    quarantine: Table[Quarantined]


@stage()
def rewrite(captions: Table[Caption], *, form: Form, seed: int) -> RewriteResult:
    """The answers in a form of `tasks.core.analysis.retag`.

    Raises:
        StageInputError: none of them could be rewritten.
    """
    rows, refused = lake.read_rows(Caption, captions), []
    done = []
    for row in rows:
        try:
            done.append(replace(row, text=retag(row.text, form, seed, row.sample_id)))
        except ValueError as error:
            refused.append(Quarantined("rewrite", row.sample_id, "not_staged", str(error)))
    if rows and not done:
        raise StageInputError(
            f"none of {len(rows)} answers has four whole stages ({refused[0].detail}); nothing to rewrite"
        )
    return RewriteResult(
        captions=lake.publish(Caption, done),
        quarantine=lake.publish(Quarantined, refused),
        counters={"refused": len(refused), "rewritten": len(done)},
    )
