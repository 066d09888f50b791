"""A checkpoint's size, read without loading it."""

from __future__ import annotations

from pathlib import Path

from storage.artifacts import PolicyCheckpoint
from storage.checkpoints import import_checkpoint
from tasks.analysis.sizes import size_of
from tests.support.paths import DEMO


def test_parameters_are_counted_from_the_headers(home: Path) -> None:
    assert size_of(import_checkpoint(PolicyCheckpoint, str(DEMO / "policy"))).parameters == 1_659_648
