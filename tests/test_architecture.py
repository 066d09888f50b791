"""The house's rules as tests: who may import whom, what a bare import may load, what a file may be called."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("flows", "tasks", "storage")
DRIVES_MODELS = ("models", "engine", "train", "demo")  # of core: loads a model library when imported
LONGER = {  # lines
    "storage/schema.py": 540,  # every row type
}
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]


def sources(*rooms: str) -> list[Path]:
    return sorted(path for room in rooms for path in (ROOT / room).rglob("*.py"))


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module(path: Path) -> str:
    return named(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()", "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def broken(output: str) -> list[str]:
    """Names of the broken contracts; import-linter wraps long ones."""
    flat = " ".join(output.split("Broken contracts")[0].split())
    return [contract["name"] for contract in CONTRACTS if f"{contract['name']} BROKEN" in flat]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The sources alone, to plant something in."""
    for room in ROOMS:
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_contracts_hold() -> None:
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


PLANTED = {
    "flows -> tasks -> storage": ("storage/objects.py", "import tasks.stage.calls"),
    "the folders of tasks are layers, and the steps of the loop are independent of each other": (
        "tasks/rollout/rollout.py",
        "import tasks.reward.score",
    ),
    "core knows row types, and neither disk nor orchestration": ("tasks/core/text.py", "import storage.lake"),
    "the algorithms don't know torch": ("tasks/core/seeds.py", "import torch"),
    "configs load no model library": ("tasks/configs/value.py", "import torch"),
    "flows order stages and leave the science to them": ("flows/recording.py", "import tasks.core.text"),
    "only the catalog speaks to DuckDB": ("storage/lake.py", "import duckdb"),
    "the store knows nothing of models and orchestration": ("storage/rows.py", "import torch"),
    "one module of tasks speaks to Prefect": ("tasks/stage/calls.py", "import prefect"),
    "only reports query what evaluation knows": ("tasks/train/finetune.py", "import storage.catalog"),
    "the front for plug-ins is for others": ("storage/locks.py", "import visloop"),
}


def test_every_contract_has_a_violation_to_plant() -> None:
    assert set(PLANTED) == {contract["name"] for contract in CONTRACTS}


@pytest.mark.parametrize("contract", PLANTED)
def test_a_planted_violation_breaks_its_contract(copy: Path, contract: str) -> None:
    name, line = PLANTED[contract]
    with (copy / name).open("a") as file:
        file.write(f"\n{line}\n")
    assert contract in broken(lint(copy).stdout)


def imports(modules: list[str], blocked: list[str]) -> subprocess.CompletedProcess[str]:
    """Import modules in a fresh process in which the blocked ones can't be had."""
    script = (
        "import importlib, sys\n"
        f"sys.modules.update(dict.fromkeys({blocked!r}))\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
    )
    return subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)


def test_core_can_be_imported_without_orchestration_database_and_models() -> None:
    modules = [module(path) for path in sources("tasks/core")]
    modules = [name for name in modules if name.split(".")[2:3] not in ([name] for name in DRIVES_MODELS)]
    result = imports(modules, ["prefect", "duckdb", "transformers"])
    assert result.returncode == 0, result.stderr


def test_the_store_and_the_cache_load_neither_models_nor_prefect() -> None:
    modules = [module(path) for path in sources("storage") if path.name != "catalog.py"]
    modules += ["tasks.stage.stage", "tasks.stage.progress", "tasks.configs.search", "tasks.configs.train"]
    result = imports(modules, ["prefect", "duckdb", "torch", "transformers", "open_clip"])
    assert result.returncode == 0, result.stderr


def test_only_the_catalog_names_duckdb() -> None:
    for path in sources(*ROOMS):
        if named(path) == "storage/catalog.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] == "duckdb" for name in names), named(path)


@pytest.mark.parametrize("path", [p for p in sources(*ROOMS) if p.name == "__init__.py"], ids=named)
def test_a_package_says_what_it_is_and_nothing_else(path: Path) -> None:
    body = ast.parse(path.read_text()).body
    assert len(body) == 1
    assert isinstance(body[0], ast.Expr)
    assert isinstance(body[0].value, ast.Constant)


def test_every_folder_of_code_is_a_package() -> None:
    for path in sources(*ROOMS):
        assert (path.parent / "__init__.py").exists(), named(path)


def test_no_file_is_called_after_nothing() -> None:
    assert not [named(p) for p in sources(*ROOMS) if p.stem.strip("_") in ("utils", "common", "helpers", "misc")]


def test_nothing_imports_what_deploys_or_measures() -> None:
    for path in sources(*ROOMS):
        text = path.read_text()
        for room in ("deployments", "benchmarks", "tests"):
            assert f"import {room}" not in text, named(path)
            assert f"from {room}" not in text, named(path)


@pytest.mark.parametrize("path", sources(*ROOMS), ids=named)
def test_a_module_says_what_it_is_and_fits_on_a_few_screens(path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "no docstring"
    name = named(path)
    assert len(text.splitlines()) <= LONGER.get(name, 260), "too long: split it"
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = (node.end_lineno or 0) - node.lineno + 1
            assert lines <= LONGER.get(f"{name}:{node.name}", 65), f"{node.name} is too long: split it"
