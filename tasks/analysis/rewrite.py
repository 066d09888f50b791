"""Rewrite: staged answers in another form, for experiments on what tags and their order are worth."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from storage import lake
from storage.artifacts import ArtifactRef, StageOutput
from storage.schema import Caption, Quarantined
from tasks.core.analysis.retag import Form, retag
from tasks.stage.runtime import RuntimeConfig
from tasks.stage.stage import StageInputError, stage


@stage()
def rewrite(captions: ArtifactRef, *, form: Form, seed: int, runtime: RuntimeConfig, label: str = "") -> StageOutput:
    """The answers as `core.analysis.retag` tells them. Outputs: captions, quarantine (`not_staged`: no four whole stages).

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
    counts = Counter(refused=len(refused), rewritten=len(done))
    return StageOutput(
        refs={"captions": lake.publish(Caption, done), "quarantine": lake.publish(Quarantined, refused)},
        counters={name: float(count) for name, count in counts.items()},
    )
