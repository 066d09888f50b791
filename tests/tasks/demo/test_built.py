"""The demo's models are kept only where they are known to be the wanted ones."""

from __future__ import annotations

from pathlib import Path

from flows.pretrain_demo import MODELS, recipe_of
from tasks.demo.built import is_built, note_built
from tasks.demo.pretrain import Steps


def test_a_model_of_another_seed_or_of_fewer_steps_is_not_kept(tmp_path: Path) -> None:
    quick, whole = (recipe_of("scorer", 1, steps) for steps in (Steps(20, 20, 20, 20, 20), Steps()))
    (tmp_path / "scorer").mkdir()
    assert not is_built(tmp_path, "scorer", whole), "nothing is known of it"
    note_built(tmp_path, "scorer", quick)
    assert is_built(tmp_path, "scorer", quick)
    assert not is_built(tmp_path, "scorer", whole)
    assert not is_built(tmp_path, "scorer", recipe_of("scorer", 2, Steps(20, 20, 20, 20, 20)))


def test_a_model_that_is_gone_is_not_there_whatever_was_noted(tmp_path: Path) -> None:
    note_built(tmp_path, "oracle", recipe_of("oracle", 0, Steps()))
    assert not is_built(tmp_path, "oracle", recipe_of("oracle", 0, Steps()))


def test_notes_of_several_models_stand_side_by_side(tmp_path: Path) -> None:
    for name in MODELS:
        (tmp_path / name).mkdir()
        note_built(tmp_path, name, recipe_of(name, 0, Steps()))
    assert all(is_built(tmp_path, name, recipe_of(name, 0, Steps())) for name in MODELS)
    longer = Steps(policy=1801)
    changed = [name for name in MODELS if not is_built(tmp_path, name, recipe_of(name, 0, longer))]
    assert changed == ["policy", "policy-independent", "policy-cot"]
