"""What counts as the same call, and how a difference is named."""

from __future__ import annotations

import dataclasses
import enum
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel, Field

from storage.artifacts import StageOutput, Table
from tasks.stage import identity as identity_module
from tasks.stage.differences import differences
from tasks.stage.identity import CHECKOUT, batch_settings, build_identity, canonical, code_of, key_of
from tasks.stage.plan import planning
from tasks.stage.runtime import RuntimeConfig, use_runtime
from tests.support import toy_stages as toy
from tests.support.paths import ROOT
from tests.support.toy_stages import Config

pytestmark = pytest.mark.usefixtures("home")


class Colour(enum.Enum):
    RED = "red"


class Inner(BaseModel):
    lr: float = 1e-5
    devices: int = Field(1, json_schema_extra={"semantic": False})


class Outer(BaseModel):
    inner: Inner = Inner()
    tags: set[str] = {"b", "a"}
    colour: Colour = Colour.RED


def test_a_canonical_value_is_plain_sorted_and_without_machine_matters() -> None:
    assert canonical(Outer()) == {"inner": {"lr": 1e-5}, "tags": ["a", "b"], "colour": "red"}
    assert canonical(Outer(inner=Inner(devices=8))) == canonical(Outer())


def test_a_reference_is_its_kind_and_digest_and_nothing_else() -> None:
    ref = Table(kind="samples", digest="d", rows=1, size=2)
    assert canonical(ref) == canonical(Table(kind="samples", digest="d", rows=3))
    assert canonical([ref]) == [{"artifact": "samples:d"}]
    output = StageOutput(refs={"samples": ref}, counters={"tokens": 3})
    assert canonical(output) == canonical(StageOutput(refs={"samples": ref}, counters={"tokens": 4}))


@pytest.mark.parametrize("value", [object(), b"bytes", 1j, [object()]])
def test_what_has_no_stable_identity_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="can't be part of a cache key"):
        canonical(value)


def test_a_key_is_the_same_in_every_process() -> None:
    script = "from tests.support import toy_stages as t; print(t.draw._call({'config': t.Config()}, t.WHOLE).key)"
    keys = set()
    for seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        keys.add(subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, check=True).stdout)
    assert len(keys) == 1


MODULES = {
    "tasks/reward/label.py": "from tasks.core.reward import shaping\nfrom tasks.stage.stage import stage\n",
    "tasks/stage/stage.py": "import prefect\n",
    "tasks/core/__init__.py": '"""Docstring."""\n',
    "tasks/core/reward/shaping.py": "def score(a):\n    from .. import text\n    return a * 2\n",
    "tasks/core/text.py": "import importlib\nlater = importlib.import_module('tasks.core.late')\n",
    "tasks/core/late.py": "x = 1\n",
    "tasks/core/unused.py": "x = 1\n",
}


def code(root: Path) -> dict[str, str]:
    fresh = root.with_name(f"{root.name}-{len(list(root.parent.iterdir()))}")  # digests are cached by path in a process
    shutil.copytree(root, fresh)
    return dict(code_of("tasks.reward.label", fresh / "tasks/reward/label.py", fresh))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in MODULES.items():
        path = tmp_path / "code" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "code"


def test_the_code_of_a_stage_is_what_it_imports_directly_indirectly_and_by_name(root: Path) -> None:
    assert set(code(root)) == {"tasks.reward.label", "tasks.core.reward.shaping", "tasks.core.text", "tasks.core.late"}


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        ("# why\ndef score(a):\n    from .. import text\n\n    return (a *\n        2)  # twice\n", False),
        ('"""Doc."""\ndef score(a):\n    """Doc."""\n    from .. import text\n    return a * 2\n', False),
        ("def score(a):\n    from .. import text\n    return a * 3\n", True),
        ("def score(a, b=1):\n    from .. import text\n    return a * 2\n", True),
    ],
)
def test_a_formula_changes_the_code_and_a_comment_does_not(root: Path, text: str, changes: bool) -> None:
    before = code(root)
    (root / "tasks/core/reward/shaping.py").write_text(text)
    after = code(root)
    assert {name for name in after if after[name] != before[name]} == (
        {"tasks.core.reward.shaping"} if changes else set()
    )


def identity(**changed: object) -> dict[str, object]:
    parts: dict[str, object] = {
        "code": {"tasks.core.reward.shaping": "1"},
        "config": Outer(),
        "captions": Table(kind="captions", digest="1"),
        "shard": None,
        **changed,
    }
    arguments = {name: parts[name] for name in ("config", "captions")}
    return build_identity("search", parts["code"], arguments, parts["shard"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, []),
        ({"config": Outer(inner=Inner(lr=0.1))}, ["search.inner.lr: 1e-05 -> 0.1"]),
        ({"code": {"tasks.core.reward.shaping": "2"}}, ["code: tasks.core.reward.shaping changed"]),
        ({"captions": Table(kind="captions", digest="2")}, ["input captions changed"]),
        ({"shard": {"index": 0, "of": 4}}, ["shards: 1 -> 4"]),
    ],
)
def test_a_difference_is_named(changed: dict[str, object], words: list[str]) -> None:
    assert differences(identity(), identity(**changed)) == words
    assert (key_of(identity()) == key_of(identity(**changed))) == (not words)


def test_a_changed_setting_is_named_by_its_section() -> None:
    changed = identity(config=Outer(inner=Inner(lr=0.1)))
    assert differences(identity(), changed, "finetune") == ["finetune.inner.lr: 1e-05 -> 0.1"]


def plan(config: Config, shards: int = 3) -> list[str]:
    with planning() as made:
        toy.loop(config, shards)
    return [str(entry) for entry in made.entries]


def test_a_plan_lists_what_never_ran_and_executes_nothing() -> None:
    assert plan(Config()) == ["run    draw: never ran", "waits  grow [3 shards]: for draw", "waits  count: for grow"]
    assert toy.computed() == []


def test_a_plan_names_the_field_that_changed_and_what_waits_for_it() -> None:
    toy.loop(Config())
    cached = ["cached draw", "cached grow [3 shards]", "cached gather (grow)", "cached count"]
    assert plan(Config()) == cached
    assert plan(Config(batch_size=9)) == cached
    assert plan(Config(word="b")) == [
        "cached draw",
        "run    grow [3 shards]: grow.word: 'a' -> 'b'",
        "waits  count: for grow",
    ]
    assert plan(Config(), shards=2)[1] == "run    grow [2 shards]: shards: 3 -> 2"
    assert plan(Config(n=8))[0] == "run    draw: draw.n: 7 -> 8"


def test_a_plan_lists_what_is_damaged() -> None:
    path = toy.draw(Config()).samples.path
    path.unlink()
    assert plan(Config())[0] == f"run    draw: {path} is gone"


def test_pending_results_can_be_used_as_if_they_were_there() -> None:
    with planning() as made:
        drawn = toy.draw(Config())
        toy.count({"all": [drawn.samples]})  # type: ignore[arg-type]
        assert f"{drawn.facts['tau']:.3f}" == "?"
        assert drawn.promoted
        assert drawn.facts.get("x").nothing  # type: ignore[union-attr]
    assert [entry.action for entry in made.entries] == ["run", "waits"]


@dataclasses.dataclass(frozen=True)
class Loaded:
    dtype: str = "float32"


@dataclasses.dataclass(frozen=True)
class Guided:
    policy: Loaded


BATCHED = {"tasks.models.engine": "0"}
WIDE, NARROW = RuntimeConfig(batch_size=16), RuntimeConfig(batch_size=2, token_budget=500)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_shape_of_a_batch_is_in_the_key_of_a_16_bit_model(dtype: str) -> None:
    for held in (Loaded(dtype), Guided(Loaded(dtype)), [Loaded(dtype)]):
        assert batch_settings(BATCHED, {"policy": held}, WIDE) == {
            "runtime.batch_size": 16,
            "runtime.token_budget": 0,
        }
        assert batch_settings(BATCHED, {"policy": held}, NARROW) != batch_settings(BATCHED, {"policy": held}, WIDE)
        assert batch_settings({"tasks.report": "0"}, {"policy": held}, NARROW) == {}


def test_the_shape_of_a_batch_is_not_in_the_key_in_float32() -> None:
    assert batch_settings(BATCHED, {"policy": Guided(Loaded())}, NARROW) == {}


@pytest.mark.parametrize(("dtype", "same"), [("float32", True), ("bfloat16", False)])
def test_a_stage_has_another_key_in_another_batch_where_results_differ(monkeypatch, dtype: str, same: bool) -> None:
    from tests.support import toy_stages

    monkeypatch.setattr(identity_module, "_BATCHED", frozenset({toy_stages.__name__}))
    keys = set()
    for runtime in (WIDE, NARROW):
        with use_runtime(runtime):
            keys.add(toy_stages.draw._call({"config": Loaded(dtype)}, toy_stages.WHOLE).key)
    assert (len(keys) == 1) == same


def test_every_module_that_fills_batches_is_known_to_the_key() -> None:
    """A module that reads the runtime's batch is in the list, or its results don't follow from it."""
    reads = {
        ".".join(path.relative_to(CHECKOUT).with_suffix("").parts)
        for path in (CHECKOUT / "tasks").rglob("*.py")
        if "current_runtime().batch_size" in path.read_text() or "runtime.token_budget or" in path.read_text()
    }
    only_reads_ahead, measures_speed = "tasks.models.loading", "tasks.analysis.cost"
    assert reads - {only_reads_ahead, measures_speed} == identity_module._BATCHED
