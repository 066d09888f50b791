"""Controls of a comparison: which specs stand beside visvm and vimar, V of another gamma, what is paired with what."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.experiments.compare import enter, run_with
from flows.profiles.loading import ProfileError
from tasks.stage.plan import planning
from tests.support.tiny_run import tiny

PROFILE = tiny("evaluate.images=8", "sample.images=16")


def test_a_search_by_v_has_controls_beside_it_and_a_control_has_none() -> None:
    entries = {entry.name: entry for entry in enter(PROFILE, ["visvm", "vimar:by=score", "visvm:gamma=0.5"], (3,))}
    assert list(entries) == [
        "greedy", "visvm@3", "visvm:guide=random@3", "visvm:gamma=0@3", "clip_prm@3", "visvm:choose=greedy@3",
        "best_of_n@3", "vimar:by=score@3", "visvm:gamma=0.5@3",
    ]  # fmt: skip
    assert entries["visvm:guide=random@3"].beside == ("visvm",)
    assert entries["clip_prm@3"].beside == ("visvm", "vimar:by=score") and entries["visvm@3"].beside == ()
    assert entries["visvm:gamma=0@3"].gamma == 0.0
    assert entries["visvm:gamma=0@3"].config == entries["visvm@3"].config, "only its V is another"
    assert entries["visvm:guide=random@3"].config.guide == "random"
    assert [entry.name for entry in enter(PROFILE, ["visvm"], (3,), controls=False)] == ["greedy", "visvm@3"]


def test_clip_prm_as_a_control_keeps_the_end_and_drops_what_is_on_the_scale_of_v() -> None:
    names = [entry.name for entry in enter(PROFILE, ["visvm:end=guide,end_value=0.2"], (2,))]
    assert "clip_prm:end=guide@2" in names
    of_profile = tiny("search.end_value=0.2")
    (prm,) = [entry for entry in enter(of_profile, ["visvm"], (2,)) if entry.name.startswith("clip_prm")]
    assert prm.name == "clip_prm:end_value=null@2" and prm.config.end_value is None


@pytest.mark.parametrize(
    ("spec", "prm"),
    [
        ("visvm:stop=value", "clip_prm:end=guide,filter=none"),
        ("visvm:stop=reward", "clip_prm:end=policy,filter=margin"),
        ("visvm:published=true", "clip_prm:published=true"),
    ],
)
def test_clip_prm_as_a_control_has_the_present_spelling_and_what_is_published(spec: str, prm: str) -> None:
    (control,) = [entry for entry in enter(PROFILE, [spec], (2,)) if entry.name.startswith("clip_prm")]
    assert control.name == f"{prm}@2" and control.config.end_value is None
    of_profile = tiny("search.end_value=0.2")
    (control,) = [entry for entry in enter(of_profile, [spec], (2,)) if entry.name.startswith("clip_prm")]
    assert control.name == f"{prm},end_value=null@2" and control.config.end_value is None


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("visvm:gamma=1", "at least 0 and below 1"),
        ("visvm:gamma=much", "at least 0 and below 1"),
        ("clip_prm:gamma=0", "this search has no V"),
    ],
)
def test_a_gamma_that_is_none_or_of_no_v_is_explained_before_anything_runs(spec: str, message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        enter(PROFILE, [spec], (1,))


def test_controls_are_paired_with_the_search_they_stand_beside(home: Path) -> None:
    with planning():
        results = {
            entry.arm: set(entry.pairs) for entry in run_with(PROFILE, False, ("visvm", "budgets=3", "tokens=99"))
        }
    assert results["visvm@3"] == {"greedy"}
    for control in ("visvm:guide=random", "visvm:gamma=0", "clip_prm", "visvm:choose=greedy", "best_of_n"):
        assert results[f"{control}@3"] == {"greedy", "visvm@3"}
