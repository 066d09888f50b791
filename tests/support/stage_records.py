"""Records of stage calls that never happened."""

from __future__ import annotations

import json
from dataclasses import replace

from storage import runs
from storage.artifacts import ArtifactRef
from storage.schema import StageRun


def called(run_id: str, number: int, shard: int | None, *refs: ArtifactRef, **changed: object) -> StageRun:
    call = StageRun(
        run_id=run_id,
        round=number,
        stage="sample",
        label="",
        shard=shard,
        key="k",
        digest="d",
        outputs=json.dumps({ref.kind: ref.model_dump() for ref in refs}),
        cached=False,
        started_at=runs.now(),
        seconds=1.0,
        rows=4,
        counters="{}",
        config="{}",
        code="c",
    )
    return replace(call, **changed)
