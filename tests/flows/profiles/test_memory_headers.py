"""The memory in a profile's header is what is computed now."""

from __future__ import annotations

import pytest

from benchmarks.memory_headers import BLOCK, with_header
from flows.profiles.loading import PROFILES

PATHS = sorted(path for path in PROFILES.glob("*.yaml") if BLOCK.search(path.read_text(encoding="utf-8")))


def test_all_profiles_of_real_models_have_a_header() -> None:
    assert len(PATHS) == 7


@pytest.mark.parametrize("path", PATHS, ids=[path.stem for path in PATHS])
def test_a_header_is_up_to_date(path: object) -> None:
    assert with_header(path) == path.read_text(encoding="utf-8"), "run python -m benchmarks.memory_headers"
