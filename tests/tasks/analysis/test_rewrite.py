"""Staged answers in another form: those without four whole stages are refused, one by one."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage import lake
from storage.artifacts import Table
from storage.schema import Caption
from tasks.analysis.rewrite import rewrite
from tasks.core.staged.answers import in_stages
from tasks.stage.quarantine import StageInputError


def captions(*texts: str) -> Table[Caption]:
    rows = [Caption(f"s{i}", f"i{i}", "p", "greedy", text, 1, "end", 1, 1) for i, text in enumerate(texts)]
    return lake.publish(Caption, rows)


def test_what_can_not_be_rewritten_is_quarantined(home: Path) -> None:
    result = rewrite(captions(in_stages(("a", "b", "c", "Yes")), "No"), form="conclusion", seed=0)
    assert [row.text for row in lake.read_rows(Caption, result.captions)] == ["Yes"]
    assert result.quarantine.rows == 1 and result.counters["refused"] == 1
    with pytest.raises(StageInputError, match="none of 1 answers"):
        rewrite(captions("No"), form="untagged", seed=0)
